{{- define "argocd.labels" -}}
app.kubernetes.io/part-of: whisperline
app.kubernetes.io/managed-by: {{ .Release.Service }}
whisperline.io/environment: {{ .Values.environment }}
{{- end }}

{{/* Tried again for an hour and more: operators, data and Whisperline become ready one after the other. Each time with what
Git has by then: otherwise a revert would wait until the last attempt at the commit that it reverts. */}}
{{- define "argocd.retry" -}}
retry:
  limit: 20
  refresh: true
  backoff:
    duration: 10s
    factor: 2
    maxDuration: 5m
{{- end }}
