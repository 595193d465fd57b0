{{/* Every helper of a component takes (dict "root" $ "component" "gateway"). */}}

{{- define "whisperline.name" -}}
{{ .root.Release.Name }}-{{ .component }}
{{- end }}

{{- define "whisperline.selector" -}}
app.kubernetes.io/name: whisperline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "whisperline.labels" -}}
{{ include "whisperline.selector" . }}
app.kubernetes.io/part-of: whisperline
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "whisperline.objectLabels" -}}
{{ include "whisperline.labels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* name@digest or name:tag. Takes (dict "name" "tag" "digest"). */}}
{{- define "whisperline.reference" -}}
{{- if .digest }}{{ .name }}@{{ .digest }}{{ else }}{{ .name }}:{{ required (printf "%s: give a digest or a tag" .name) .tag }}{{ end }}
{{- end }}

{{/* Takes (dict "root" $ "image" "gateway"). */}}
{{- define "whisperline.image" -}}
{{- $image := get .root.Values.images .image -}}
{{- $name := printf "%s/%s" .root.Values.images.registry .image -}}
image: {{ include "whisperline.reference" (dict "name" $name "tag" ($image.tag | default .root.Chart.AppVersion) "digest" $image.digest) }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
{{- end }}

{{/* What every pod has. */}}
{{- define "whisperline.podSecurity" -}}
serviceAccountName: {{ include "whisperline.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "whisperline.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Where the pods of a component may run. */}}
{{- define "whisperline.placement" -}}
{{- $values := get .root.Values .component -}}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
  {{- range $key, $when := dict "topology.kubernetes.io/zone" .root.Values.topologySpread.zones "kubernetes.io/hostname" .root.Values.topologySpread.nodes }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: {{ $when }}
    labelSelector:
      matchLabels:
        {{- include "whisperline.selector" $ | nindent 8 }}
    {{- if ne $.component "gateway" }}
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end }}

{{/* Environment from a map of settings. Takes (dict "prefix" "settings"). */}}
{{- define "whisperline.settings" -}}
{{- range $name, $value := .settings }}
- name: {{ $.prefix }}_{{ $name }}
  value: {{ ternary $value ($value | toJson) (kindIs "string" $value) | quote }}
{{- end }}
{{- end }}

{{/*
Where spans go; nothing without an endpoint, which turns tracing off. Takes root and component. The commas and equals signs
that separate attributes and headers are not allowed in their values, so nothing is encoded here.
*/}}
{{- define "whisperline.telemetryEnv" -}}
{{- with .root.Values.telemetry }}
{{- if .otlp.endpoint }}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: OTEL_SERVICE_NAME
  value: whisperline-{{ $.component }}
{{- $image := get $.root.Values.images $.component }}
{{- $attributes := dict
  "service.namespace" $.root.Release.Name
  "service.version" ($image.tag | default $.root.Chart.AppVersion)
  "service.instance.id" "$(POD_NAME)"
  "k8s.namespace.name" $.root.Release.Namespace
  "k8s.pod.name" "$(POD_NAME)"
}}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ include "whisperline.pairs" (merge (deepCopy .resourceAttributes) $attributes) | quote }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .otlp.endpoint | quote }}
{{- with .otlp.headers }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  value: {{ include "whisperline.pairs" . | quote }}
{{- end }}
- name: OTEL_TRACES_SAMPLER
  value: {{ .sampler }}
{{- with .samplerArgument }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* name=value,name=value. */}}
{{- define "whisperline.pairs" -}}
{{- $pairs := list }}
{{- range $name, $value := . }}
{{- $pairs = append $pairs (printf "%s=%s" $name $value) }}
{{- end }}
{{- join "," $pairs }}
{{- end }}

{{/* How Kafka is reached. Takes root, component and prefix. */}}
{{- define "whisperline.kafkaEnv" -}}
{{- $kafka := .root.Values.kafka -}}
- name: {{ .prefix }}_KAFKA_BOOTSTRAP
  value: {{ $kafka.bootstrap | quote }}
- name: {{ .prefix }}_KAFKA_SECURITY_PROTOCOL
  value: {{ $kafka.securityProtocol }}
{{- if hasPrefix "SASL" $kafka.securityProtocol }}
- name: {{ .prefix }}_KAFKA_SASL_MECHANISM
  value: {{ required "kafka.saslMechanism: needed with SASL" $kafka.saslMechanism }}
- name: {{ .prefix }}_KAFKA_SASL_USERNAME
  value: {{ get $kafka.users .component | quote }}
{{- end }}
{{- if include "whisperline.kafkaCa" .root }}
- name: {{ .prefix }}_KAFKA_CA_FILE
  value: /etc/whisperline/kafka-ca/ca.crt
{{- end }}
{{- end }}

{{- define "whisperline.kafkaCa" -}}
{{- if and (hasSuffix "SSL" .Values.kafka.securityProtocol) .Values.kafka.ca.secretName }}true{{ end }}
{{- end }}

{{/* The secrets of a component: file (the setting's name in lower case) to name under `secrets`, as YAML. */}}
{{- define "whisperline.secretFiles" -}}
{{- $password := hasPrefix "SASL" .root.Values.kafka.securityProtocol -}}
{{- if eq .component "gateway" }}
whisperline_gateway_token_secret: tokenSecret
whisperline_gateway_database_url: gatewayDatabaseUrl
{{- end }}
{{- if has .component (list "persistence" "migrations") }}
whisperline_persistence_database_url: persistenceDatabaseUrl
{{- end }}
{{- if and $password (has .component (list "gateway" "transcriber" "persistence" "topics")) }}
whisperline_{{ .component }}_kafka_sasl_password: {{ .component }}KafkaPassword
{{- end }}
{{- end }}

{{/* The setting that says where they are; nothing where there are none. */}}
{{- define "whisperline.secretEnv" -}}
{{- if include "whisperline.secretFiles" . | fromYaml }}
- name: WHISPERLINE_SECRETS_DIR
  value: /etc/whisperline/secrets
{{- end }}
{{- end }}

{{- define "whisperline.secretMounts" -}}
{{- if include "whisperline.secretFiles" . | fromYaml }}
- {name: secrets, mountPath: /etc/whisperline/secrets, readOnly: true}
{{- end }}
{{- if and (ne .component "migrations") (include "whisperline.kafkaCa" .root) }}
- {name: kafka-ca, mountPath: /etc/whisperline/kafka-ca, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "whisperline.secretVolumes" -}}
{{- $secrets := .root.Values.secrets -}}
{{- with include "whisperline.secretFiles" . | fromYaml }}
- name: secrets
  {{- if eq $secrets.source "existing" }}
  projected:
    defaultMode: 0440
    sources:
      {{- range $file, $secret := . }}
      {{- $from := get $secrets $secret }}
      - secret: {name: {{ $from.secretName }}, items: [{key: {{ $from.key }}, path: {{ $file }}}]}
      {{- end }}
  {{- else if eq $secrets.source "externalSecret" }}
  secret:
    secretName: {{ include "whisperline.name" $ }}
    defaultMode: 0440
  {{- else }}
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes: {secretProviderClass: {{ include "whisperline.name" $ }}}
  {{- end }}
{{- end }}
{{- if and (ne .component "migrations") (include "whisperline.kafkaCa" .root) }}
- name: kafka-ca
  secret:
    secretName: {{ .root.Values.kafka.ca.secretName }}
    defaultMode: 0440
    items: [{key: {{ .root.Values.kafka.ca.key }}, path: ca.crt}]
{{- end }}
- name: tmp
  emptyDir: {medium: Memory, sizeLimit: 64Mi}
{{- end }}

{{/* Chosen series of a component: by the labels that every PodMonitor gives. */}}
{{- define "whisperline.series" -}}
namespace="{{ .root.Release.Namespace }}",pod=~"{{ include "whisperline.name" . }}-.+"
{{- end }}

{{/* Argo CD takes its own annotations where an object has them, Helm its own. */}}
{{- define "whisperline.hook" -}}
helm.sh/hook: {{ ternary "pre-install" "post-install" (eq .Values.secrets.source "existing") }},pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation
argocd.argoproj.io/hook: Sync
argocd.argoproj.io/hook-delete-policy: BeforeHookCreation
argocd.argoproj.io/sync-wave: "-1"
{{- end }}

{{/* Seconds before SIGTERM in which the pod is taken out of its Services everywhere. */}}
{{- define "whisperline.preStopSeconds" -}}5{{- end }}
