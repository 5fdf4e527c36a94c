{{/*
Volume sources that tenants' read-only volumes may have, as a JSON list: those that are named, and the one of the platform's own
claim where it is bound and every node may mount it.
*/}}
{{- define "torpor.dataSources" -}}
{{- $sources := .Values.data.volumes -}}
{{- $claim := include "torpor.dataClaim" . -}}
{{- if and $claim (eq .Values.data.accessMode "ReadWriteMany") -}}
{{- $found := lookup "v1" "PersistentVolumeClaim" .Release.Namespace $claim -}}
{{- $volume := dig "spec" "volumeName" "" $found -}}
{{- if $volume -}}
{{- $spec := dig "spec" dict (lookup "v1" "PersistentVolume" "" $volume) -}}
{{- range $kind := list "nfs" "csi" "hostPath" -}}
{{- with index $spec $kind -}}
{{- $sources = append $sources (dict $kind .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $sources -}}
{{- end -}}

{{/* CEL that is true for a volume with exactly one of the sources: a JSON list of them. */}}
{{- define "torpor.sourceExpression" -}}
{{- $each := list -}}
{{- range fromJsonArray . -}}
{{- with .nfs -}}
{{- $each = append $each (printf "(has(object.spec.nfs) && object.spec.nfs.server == %s && object.spec.nfs.path == %s)" (toJson .server) (toJson .path)) -}}
{{- end -}}
{{- with .hostPath -}}
{{- $each = append $each (printf "(has(object.spec.hostPath) && object.spec.hostPath.path == %s)" (toJson .path)) -}}
{{- end -}}
{{- with .csi -}}
{{- $csi := . -}}
{{- $parts := list (printf "has(object.spec.csi) && object.spec.csi.driver == %s && object.spec.csi.volumeHandle == %s" (toJson .driver) (toJson .volumeHandle)) -}}
{{- $parts = append $parts (printf "object.spec.csi.?volumeAttributes.orValue({}) == %s" (toJson (.volumeAttributes | default dict))) -}}
{{- range $name := list "nodeStageSecretRef" "nodePublishSecretRef" -}}
{{- $secret := index $csi $name | default dict -}}
{{- range $key := list "namespace" "name" -}}
{{- $parts = append $parts (printf "object.spec.csi.?%s.%s.orValue('') == %s" $name $key (toJson (index $secret $key | default ""))) -}}
{{- end -}}
{{- end -}}
{{- $each = append $each (printf "(%s)" (join " && " $parts)) -}}
{{- end -}}
{{- end -}}
{{- join " || " $each | default "false" -}}
{{- end -}}
