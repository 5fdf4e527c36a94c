{{/*
Where the platform's own data lies, as a JSON object: what the values say, or the volume of the claim where every node may mount
it and it is bound already; else empty.
*/}}
{{- define "torpor.dataSource" -}}
{{- $source := ternary .Values.data.source dict .Values.data.enabled -}}
{{- $claim := include "torpor.dataClaim" . -}}
{{- if and $claim (not $source) (eq .Values.data.accessMode "ReadWriteMany") -}}
{{- $volume := dig "spec" "volumeName" "" (lookup "v1" "PersistentVolumeClaim" .Release.Namespace $claim) -}}
{{- if $volume -}}
{{- $spec := dig "spec" dict (lookup "v1" "PersistentVolume" "" $volume) -}}
{{- range $kind := list "nfs" "csi" "hostPath" -}}
{{- with index $spec $kind -}}
{{- $source = dict $kind . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $source -}}
{{- end -}}

{{/* Whether tenants' workspaces and jobs can mount it: "true" or empty. */}}
{{- define "torpor.dataIsShared" -}}
{{- if and .Values.data.enabled (or .Values.data.source (eq .Values.data.accessMode "ReadWriteMany")) -}}true{{- end -}}
{{- end -}}

{{/* CEL that is true for a volume with exactly this source: a JSON object. */}}
{{- define "torpor.sourceExpression" -}}
{{- $source := fromJson . -}}
{{- if $source.nfs -}}
has(object.spec.nfs) && object.spec.nfs.server == {{ toJson $source.nfs.server }} && object.spec.nfs.path == {{ toJson $source.nfs.path }}
{{- else if $source.hostPath -}}
has(object.spec.hostPath) && object.spec.hostPath.path == {{ toJson $source.hostPath.path }}
{{- else if $source.csi -}}
has(object.spec.csi) && object.spec.csi.driver == {{ toJson $source.csi.driver }} && object.spec.csi.volumeHandle == {{ toJson $source.csi.volumeHandle }} && object.spec.csi.?volumeAttributes.orValue({}) == {{ toJson ($source.csi.volumeAttributes | default dict) }}
{{- range $name := list "nodeStageSecretRef" "nodePublishSecretRef" }}
{{- $secret := index $source.csi $name | default dict }} && object.spec.csi.?{{ $name }}.?namespace.orValue('') == {{ toJson ($secret.namespace | default "") }} && object.spec.csi.?{{ $name }}.?name.orValue('') == {{ toJson ($secret.name | default "") }}
{{- end }}
{{- else -}}
false
{{- end -}}
{{- end -}}
