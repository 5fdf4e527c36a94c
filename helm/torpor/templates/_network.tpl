{{/* Pods of workspaces or jobs in tenants' namespaces, as a policy's peer: a list of components. */}}
{{- define "torpor.tenantPods" -}}
namespaceSelector:
  matchLabels: {app.kubernetes.io/managed-by: torpor}
  matchExpressions:
    - {key: torpor/tenant, operator: Exists}
podSelector:
  matchExpressions:
    - {key: app.kubernetes.io/component, operator: In, values: {{ toJson . }}}
{{- end -}}

{{/* A rule that lets pods ask for names. */}}
{{- define "torpor.names" -}}
to:
  - namespaceSelector:
      matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.dns.namespace }}}
    podSelector:
      matchLabels: {{- toYaml .Values.networkPolicy.dns.labels | nindent 8 }}
ports:
  {{- range .Values.networkPolicy.dns.ports }}
  - {protocol: UDP, port: {{ . }}}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end -}}

{{/* A rule towards one of the platform's components: (list root component port) */}}
{{- define "torpor.towards" -}}
{{- $root := index . 0 -}}
to:
  - namespaceSelector:
      matchLabels: {kubernetes.io/metadata.name: {{ $root.Release.Namespace }}}
    podSelector:
      matchLabels: {{- include "torpor.selector" (list $root (index . 1)) | nindent 8 }}
ports:
  - {protocol: TCP, port: {{ index . 2 }}}
{{- end -}}
