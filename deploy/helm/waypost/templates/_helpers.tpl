{{- define "waypost.fullname" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "waypost.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "waypost.fullname" . -}}-worker
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "waypost.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry -}}{{ . }}/{{- end -}}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- with $image.digest -}}@{{ . }}{{- end -}}
{{- end -}}

{{- /* Labels of an object: (list . "worker"). */ -}}
{{- define "waypost.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: waypost
app.kubernetes.io/part-of: waypost
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{ include "waypost.selector" . }}
{{- end -}}

{{- /* By which pods are found. Two releases may share a namespace. */ -}}
{{- define "waypost.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- /* Values as texts: a large number would be written with an exponent. */ -}}
{{- define "waypost.variables" -}}
{{- range $name, $value := . }}
{{ $name }}: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ $value | toJson | quote }}{{ end }}
{{- end }}
{{- end -}}

{{- define "waypost.topicPrefix" -}}
{{- get .Values.settings "WAYPOST_TOPIC_PREFIX" | default "waypost" -}}
{{- end -}}

{{- define "waypost.groupId" -}}
{{- get .Values.settings "WAYPOST_GROUP_ID" | default "waypost" -}}
{{- end -}}

{{- define "waypost.postgresSecret" -}}
{{- if .Values.trial.enabled -}}
{{- include "waypost.fullname" . -}}-postgres
{{- else -}}
{{- .Values.postgres.secret -}}
{{- end -}}
{{- end -}}

{{- define "waypost.consoleSecret" -}}
{{- if .Values.trial.enabled -}}
{{- include "waypost.fullname" . -}}-console-access
{{- else -}}
{{- .Values.console.secret -}}
{{- end -}}
{{- end -}}

{{- define "waypost.dsn" -}}
postgresql://waypost:{{ .Values.trial.password }}@{{ include "waypost.fullname" . }}-postgres/waypost
{{- end -}}

{{- define "waypost.bootstrapServers" -}}
{{- if .Values.trial.enabled -}}
{{- include "waypost.fullname" . -}}-kafka-bootstrap:9092
{{- else if .Values.strimzi.enabled -}}
{{- .Values.strimzi.cluster -}}-kafka-bootstrap:9093
{{- else -}}
{{- .Values.kafka.bootstrapServers -}}
{{- end -}}
{{- end -}}

{{- define "waypost.caSecret" -}}
{{- if .Values.strimzi.enabled -}}
{{- .Values.strimzi.cluster -}}-cluster-ca-cert
{{- else -}}
{{- .Values.kafka.tls.caSecret -}}
{{- end -}}
{{- end -}}

{{- /* The secret with somebody's certificate: (list . "worker"). */ -}}
{{- define "waypost.userSecret" -}}
{{- $root := index . 0 -}}
{{- $who := index . 1 -}}
{{- if $root.Values.strimzi.enabled -}}
{{- include "waypost.fullname" $root -}}-{{ $who }}
{{- else -}}
{{- get $root.Values.kafka.tls (printf "%sSecret" $who) -}}
{{- end -}}
{{- end -}}

{{- /* What all pods have in common. */ -}}
{{- define "waypost.pod" -}}
serviceAccountName: {{ include "waypost.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* What all containers of Waypost have in common. */ -}}
{{- define "waypost.container" -}}
image: {{ include "waypost.image" . }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "waypost.small" -}}
resources:
  requests: {cpu: 100m, memory: 128Mi}
  limits: {memory: 256Mi}
{{- end -}}

{{- define "waypost.settingsFrom" -}}
envFrom:
  - configMapRef: {name: {{ include "waypost.fullname" . }}}
{{- end -}}

{{- define "waypost.dsnVolume" -}}
- name: postgres
  secret:
    secretName: {{ include "waypost.postgresSecret" . }}
    defaultMode: 0440
    items: [{key: dsn, path: dsn}]
{{- end -}}

{{- define "waypost.dsnMount" -}}
- {name: postgres, mountPath: /etc/waypost/postgres, readOnly: true}
{{- end -}}

{{- /* Certificates for Kafka of somebody: (list . "worker"). */ -}}
{{- define "waypost.tlsVolumes" -}}
{{- with include "waypost.caSecret" (index . 0) }}
- name: kafka-ca
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- with include "waypost.userSecret" . }}
- name: kafka-user
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: user.crt, path: user.crt}, {key: user.key, path: user.key}]
{{- end }}
{{- end -}}

{{- define "waypost.tlsMounts" -}}
{{- if include "waypost.caSecret" (index . 0) }}
- {name: kafka-ca, mountPath: /etc/waypost/kafka-ca, readOnly: true}
{{- end }}
{{- if include "waypost.userSecret" . }}
- {name: kafka-user, mountPath: /etc/waypost/kafka-user, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Where pods may go: names, and ports. */ -}}
{{- define "waypost.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- range . }}
    - {port: {{ . }}, protocol: TCP}
{{- end }}
{{- end -}}
