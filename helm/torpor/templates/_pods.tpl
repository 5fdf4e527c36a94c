{{/* What all of the platform's pods have, the agent's apart: (list root component values) */}}
{{- define "torpor.podSpec" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- include "torpor.placement" (list $root $values) }}
{{- end -}}

{{/* Where pods may run, and how their images are pulled: (list root values) */}}
{{- define "torpor.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "torpor.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "torpor.settingsMount" -}}
- {name: settings, mountPath: /etc/torpor, readOnly: true}
- {name: secrets, mountPath: /run/torpor/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{/*
Settings and secrets of a component: (list root keys proof).
``keys`` are the items of the Secret that it needs; ``proof`` names its token for the api, which the cluster makes.
*/}}
{{- define "torpor.settingsVolumes" -}}
{{- $root := index . 0 -}}
- name: settings
  configMap: {name: {{ include "torpor.fullname" $root }}-settings}
- name: tmp
  emptyDir: {}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- with index . 1 }}
      - secret:
          name: {{ include "torpor.secretName" $root }}
          items:
            {{- range . }}
            - {key: {{ . }}, path: {{ . }}}
            {{- end }}
      {{- end }}
      {{- with index . 2 }}
      - serviceAccountToken: {audience: torpor, expirationSeconds: 3600, path: {{ . }}}
      {{- end }}
{{- end -}}

{{- define "torpor.settingsEnvironment" -}}
- {name: TORPOR_SETTINGS, value: /etc/torpor/torpor.yaml}
{{- end -}}

{{/* Pods start anew when what they read at their start has changed. */}}
{{- define "torpor.checksums" -}}
checksum/settings: {{ include "torpor.settings" . | sha256sum }}
{{- end -}}
