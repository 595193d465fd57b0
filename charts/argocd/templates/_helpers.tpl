{{- define "argocd.labels" -}}
app.kubernetes.io/part-of: whisperline
app.kubernetes.io/managed-by: {{ .Release.Service }}
whisperline.io/environment: {{ .Values.environment }}
{{- end }}

{{/* Tried again for an hour and more: operators, data and Whisperline become ready one after the other. */}}
{{- define "argocd.retry" -}}
retry:
  limit: 20
  backoff:
    duration: 10s
    factor: 2
    maxDuration: 5m
{{- end }}
