{{/* A deployment of torpor-server: (dict root component account roles replicas) */}}
{{- define "torpor.serverDeployment" -}}
{{- $root := .root -}}
{{- $name := include "torpor.fullname" $root -}}
{{- $values := $root.Values.server -}}
{{- $postgres := include "torpor.onPostgres" $root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "torpor.metadata" (list $root .component (printf "%s-%s" $name .component)) | nindent 2 }}
spec:
  replicas: {{ .replicas }}
  {{- if not $postgres }}
  # One process writes a SQLite database.
  strategy: {type: Recreate}
  {{- end }}
  selector:
    matchLabels: {{- include "torpor.selector" (list $root .component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "torpor.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
      annotations:
        {{- include "torpor.checksums" $root | nindent 8 }}
        checksum/accounts: {{ list $root.Values.registry $root.Values.database $root.Values.blobs | toJson | sha256sum }}
    spec:
      serviceAccountName: {{ $name }}-{{ .account }}
      automountServiceAccountToken: true
      terminationGracePeriodSeconds: 30
      {{- include "torpor.podSpec" (list $root .component $values) | nindent 6 }}
      containers:
        - name: server
          image: {{ include "torpor.image" (list $root "platform" "platform") | quote }}
          imagePullPolicy: {{ $root.Values.images.pullPolicy }}
          args: [torpor-server, --settings, /etc/torpor/torpor.yaml, --roles, {{ .roles | quote }}]
          workingDir: /var/lib/torpor
          env:
            {{- include "torpor.settingsEnvironment" $root | nindent 12 }}
            {{- include "torpor.storeEnvironment" $root | nindent 12 }}
          ports:
            - {name: http, containerPort: 8090}
          # Long enough for the migration of a large database.
          startupProbe:
            httpGet: &health {path: {{ include "torpor.basePath" $root }}services/torpor/api/v1/health, port: http}
            periodSeconds: 1
            timeoutSeconds: 3
            failureThreshold: 600
          readinessProbe:
            httpGet: *health
            periodSeconds: 5
            timeoutSeconds: 3
          livenessProbe:
            httpGet: *health
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 12
          resources: {{- toYaml $values.resources | nindent 12 }}
          securityContext: {{- include "torpor.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            {{- include "torpor.settingsMount" $root | nindent 12 }}
            - {name: state, mountPath: /var/lib/torpor}
      volumes:
        {{- include "torpor.settingsVolumes" (list $root (list "hub-service-token" "signing-key" "fernet-key") "") | nindent 8 }}
              {{- if contains "controller" .roles }}
              - secret:
                  name: {{ include "torpor.secretName" $root }}
                  # There are none where the registry has no accounts.
                  optional: true
                  items:
                    - {key: registry-push, path: registry-push}
                    - {key: registry-pull, path: registry-pull}
              {{- if $root.Values.registry.host }}
              {{- range $index, $secret := $root.Values.images.pullSecrets }}
              # For profiles' images in other registries; the number keeps the order. A secret may come later.
              - secret:
                  name: {{ $secret }}
                  optional: true
                  items:
                    - {key: .dockerconfigjson, path: {{ printf "pull-secrets/%02d-%s" $index $secret }}}
              {{- end }}
              {{- end }}
              {{- end }}
        - name: state
          {{- if $postgres }}
          emptyDir: {}
          {{- else }}
          persistentVolumeClaim: {claimName: {{ $name }}-server}
          {{- end }}
{{- end -}}

{{/* Where database and blobs are, with what opens them. */}}
{{- define "torpor.storeEnvironment" -}}
{{- $name := include "torpor.fullname" . -}}
{{- if include "torpor.onPostgres" . -}}
- name: TORPOR_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.database.existingSecret | default (printf "%s-database" $name) }}, key: url}}
{{- end }}
{{- with .Values.blobs.s3 }}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .region }}
- {name: AWS_DEFAULT_REGION, value: {{ .region | quote }}}
{{- end }}
{{- if or .accessKeyId .existingSecret }}
{{- $secret := .existingSecret | default (printf "%s-blobs" $name) }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: access-key-id}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: secret-access-key}}
{{- end }}
{{- end }}
{{- end -}}
