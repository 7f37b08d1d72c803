{{/* The release's full name: short enough for a label and for what is appended to it. */}}
{{- define "sluice.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a selector matches: never changed between versions, a Deployment's selector being immutable. */}}
{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sluice.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "sluice.storeImage" -}}
{{ .Values.store.image.repository }}:{{ default .Chart.AppVersion .Values.store.image.tag }}
{{- end -}}

{{/*
What the operator may do where it watches: exactly the calls it makes. No wildcard, no pods/exec, nothing on nodes or volumes.
operator/src/controllers is the other half: a call added there needs its verb here, and the Kubernetes tests run with these rules.
*/}}
{{- define "sluice.rules" -}}
- apiGroups: [sluice.dev]
  resources: [sluiceclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [sluice.dev]
  resources: [slotmigrations]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [sluice.dev]
  resources: [sluiceclusters/status, slotmigrations/status]
  verbs: [get, patch]
# Owner references that block deletion, where the API server checks them.
- apiGroups: [sluice.dev]
  resources: [sluiceclusters/finalizers, slotmigrations/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# One of them is the topology document, which is replaced with the version that was read, never patched.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, update, delete]
# The admin password of each cluster is made by the operator; certificates are read where a SluiceCluster names them.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
# A restart is the deletion of a pod.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
# Volumes grow, and go where a SluiceCluster says that they shall.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}
