{{/* What must outlive its Application and its release. */}}
{{- define "data.kept" -}}
argocd.argoproj.io/sync-options: Prune=false,Delete=false
helm.sh/resource-policy: keep
{{- end }}

{{- define "data.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The pods of charts/whisperline that may connect: `.components` are their deployables. */}}
{{- define "data.clients" -}}
podSelector:
  matchLabels:
    {{- toYaml .root.Values.clients.labels | nindent 4 }}
  matchExpressions:
    - {key: app.kubernetes.io/component, operator: In, values: {{ .components | toJson }}}
{{- end }}
