{{/* What the names of the release's own objects begin with; at most 40 characters, so that all of them stay below 63. */}}
{{- define "torpor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "torpor.instanceLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "torpor.labels" -}}
{{ include "torpor.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* metadata of an object: (list root component name [namespace]) */}}
{{- define "torpor.metadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
namespace: {{ if gt (len .) 3 }}{{ index . 3 }}{{ else }}{{ $root.Release.Namespace }}{{ end }}
labels:
  {{- include "torpor.labels" $root | nindent 2 }}
  app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The same for an object of the whole cluster: (list root component name) */}}
{{- define "torpor.clusterMetadata" -}}
name: {{ index . 2 }}
labels:
  {{- include "torpor.labels" (index . 0) | nindent 2 }}
  app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* matchLabels of a component's pods: (list root component) */}}
{{- define "torpor.selector" -}}
{{ include "torpor.instanceLabels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "torpor.agentNamespace" -}}
{{- .Values.agent.namespace | default (printf "%s-agent" .Release.Namespace) -}}
{{- end -}}

{{- define "torpor.namespacePrefix" -}}
{{- .Values.tenants.namespacePrefix | default (printf "%s-" .Release.Namespace) -}}
{{- end -}}

{{/* What tells this installation from all others of the cluster, as the label torpor/instance has it. */}}
{{- define "torpor.instance" -}}
{{- printf "%s.%s" .Release.Namespace .Release.Name | trunc 63 | trimAll "-." -}}
{{- end -}}

{{/* Where the platform's images lie. */}}
{{- define "torpor.repository" -}}
{{- if .Values.images.repository -}}
{{- .Values.images.repository -}}
{{- else -}}
{{- printf "%s/%s" .Values.registry.host .Values.registry.prefix -}}
{{- end -}}
{{- end -}}

{{/* One of the platform's images: (list root key name) */}}
{{- define "torpor.image" -}}
{{- $root := index . 0 -}}
{{- with index $root.Values.images (index . 1) -}}
{{- . -}}
{{- else -}}
{{- printf "%s/%s:%s" (include "torpor.repository" $root) (index . 2) ($root.Values.images.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "torpor.publicUrl" -}}
{{- if .Values.publicUrl -}}
{{- printf "%s/" (trimSuffix "/" .Values.publicUrl) -}}
{{- else if .Values.ingress.enabled -}}
{{- printf "%s://%s/" (ternary "https" "http" (ne .Values.ingress.tlsSecret "")) .Values.ingress.host -}}
{{- else -}}
http://127.0.0.1:8000/
{{- end -}}
{{- end -}}

{{/* The path below which everything is served; begins and ends with a slash. */}}
{{- define "torpor.basePath" -}}
{{- (urlParse (include "torpor.publicUrl" .)).path | default "/" -}}
{{- end -}}

{{- define "torpor.secretName" -}}
{{- .Values.existingSecret | default (printf "%s-secrets" (include "torpor.fullname" .)) -}}
{{- end -}}

{{/* Whether api and controller are two deployments: "true" or empty. */}}
{{- define "torpor.onPostgres" -}}
{{- if or .Values.database.url .Values.database.existingSecret -}}true{{- end -}}
{{- end -}}

{{/* The claim with the platform's own data; empty where there is none. */}}
{{- define "torpor.dataClaim" -}}
{{- if .Values.data.enabled -}}
{{- printf "%s-data" (include "torpor.fullname" .) -}}
{{- end -}}
{{- end -}}
