{{- define "duologue.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "duologue.labels" -}}
app.kubernetes.io/name: duologue
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "duologue.environment" -}}
envFrom:
  - secretRef:
      name: {{ .Values.secretName }}
{{- if .Values.env }}
env:
  {{- range $name, $value := .Values.env }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}
