{{/* The settings file of all components. It holds no secret. */}}
{{- define "torpor.settings" -}}
{{- $name := include "torpor.fullname" . -}}
{{- $domain := printf "%s.svc" .Release.Namespace -}}
mode: kubernetes
save_environments: {{ ne .Values.registry.host "" }}
state_dir: /var/lib/torpor
secrets_dir: /run/torpor/secrets
public_url: {{ include "torpor.publicUrl" . | quote }}
server: {host: 0.0.0.0, port: 8090, connect_url: "http://{{ $name }}-server.{{ $domain }}:8090"}
hub: {host: 0.0.0.0, port: 8081, connect_url: "http://{{ $name }}-hub.{{ $domain }}:8081"}
proxy: {host: 0.0.0.0, port: 8000, connect_url: "http://{{ $name }}-proxy.{{ $domain }}:8000"}
proxy_api: {host: 0.0.0.0, port: 8001, connect_url: "http://{{ $name }}-proxy-api.{{ $domain }}:8001"}
{{- with .Values.blobs.url }}
blobs_url: {{ . | quote }}
{{- end }}
paths: {workspace: /opt/workspace, home: /home/user, data: /data}
registry: {host: {{ .Values.registry.host | quote }}, insecure: {{ .Values.registry.insecure }}, prefix: {{ .Values.registry.prefix | quote }}}
cluster:
  namespace: {{ .Release.Namespace }}
  agent_namespace: {{ include "torpor.agentNamespace" . }}
  fullname: {{ $name }}
  instance: {{ .Release.Name }}
  namespace_prefix: {{ include "torpor.namespacePrefix" . | quote }}
  relax_x509: {{ .Values.cluster.relaxX509 }}
  dns_namespace: {{ .Values.networkPolicy.dns.namespace }}
  dns_labels: {{- toYaml .Values.networkPolicy.dns.labels | nindent 4 }}
  dns_ports: {{ toJson .Values.networkPolicy.dns.ports }}
  egress: {{ toJson .Values.tenants.egress }}
  node_selector: {{ toJson .Values.tenants.nodeSelector }}
  tolerations: {{ toJson .Values.tenants.tolerations }}
  homes:
    storage_class: {{ .Values.homes.storageClass | quote }}
    access_mode: {{ .Values.homes.accessMode }}
    size_bytes: {{ .Values.homes.sizeBytes | int64 }}
  data_source: {{ include "torpor.dataSource" . }}
{{- with .Values.limits }}
limits: {{ toJson . }}
{{- end }}
seed:
  tenants: {{ toJson .Values.seed.tenants }}
  users: {{ toJson .Values.seed.users }}
  profiles:
    {{- range .Values.seed.profiles }}
    - {{ toJson (merge (dict "image" (include "torpor.profileImage" (list $ .))) .) }}
    {{- end }}
    {{- if .Values.gpu.enabled }}
    - {{ toJson (merge (dict "image" (include "torpor.profileImage" (list $ .Values.gpu.profile))) .Values.gpu.profile) }}
    {{- end }}
{{- end -}}

{{/* The image of a profile: its own, or the one with Spark: (list root profile) */}}
{{- define "torpor.profileImage" -}}
{{- $profile := index . 1 -}}
{{- if $profile.image -}}
{{- $profile.image -}}
{{- else if has "spark" ($profile.kinds | default (list "command" "spark")) -}}
{{- include "torpor.image" (list (index . 0) "workspaceSpark" "workspace-spark") -}}
{{- else -}}
{{- include "torpor.image" (list (index . 0) "workspace" "workspace") -}}
{{- end -}}
{{- end -}}
