{{- define "open-autoglm.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "open-autoglm.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "open-autoglm.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "open-autoglm.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "open-autoglm.selector" -}}
app.kubernetes.io/name: {{ include "open-autoglm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "open-autoglm.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "open-autoglm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "open-autoglm.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "open-autoglm.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "open-autoglm.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
  {{- with .host }}
  httpHeaders:
    - {name: Host, value: {{ . | quote }}}
  {{- end }}
{{ toYaml .timing }}
{{- end -}}

{{- define "open-autoglm.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "open-autoglm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "open-autoglm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "open-autoglm.environment" -}}
env:
  - name: OPENAUTOGLM_REGISTRY
    valueFrom:
      secretKeyRef:
        {{- if .Values.registry.existingSecret }}
        name: {{ .Values.registry.existingSecret }}
        key: {{ .Values.registry.existingSecretKey }}
        {{- else }}
        name: {{ include "open-autoglm.fullname" . }}
        key: registry-url
        {{- end }}
envFrom:
  - configMapRef: {name: {{ include "open-autoglm.fullname" . }}-settings}
{{- end -}}
