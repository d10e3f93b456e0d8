{{- define "helios.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Of every object: the release's name, with the chart's unless it is in there already. */ -}}
{{- define "helios.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "helios.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "helios.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Of what stands outside the release's namespace. A colon, which neither part can have, keeps a-b in c apart from a
       in b-c. */ -}}
{{- define "helios.wideName" -}}
{{- printf "%s:%s" .Release.Namespace (include "helios.fullname" .) -}}
{{- end -}}

{{- /* A Service's name begins with a letter; a release's may begin with a digit. */ -}}
{{- define "helios.service" -}}
{{- $name := include "helios.fullname" . -}}
{{- if regexMatch "^[0-9]" $name }}{{ $name = printf "helios-%s" $name }}{{ end -}}
{{- printf "%s-operator" $name -}}
{{- end -}}

{{- define "helios.selector" -}}
app.kubernetes.io/name: helios-operator
app.kubernetes.io/instance: {{ include "helios.fullname" . | quote }}
{{- end -}}

{{- define "helios.labels" -}}
{{ include "helios.selector" . }}
app.kubernetes.io/part-of: helios
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{- define "helios.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "helios.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: is empty while serviceAccount.create is false; name the account that the operator runs as" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Takes a list: the root, and one of .Values.images.operator and .Values.images.server. */ -}}
{{- define "helios.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.images.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end -}}
{{- end -}}

{{- define "helios.restrictedContainer" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "helios.restrictedPod" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /* What the operator does in a namespace that it watches, and nothing else: its tests on a cluster use each of these
       rights. Secrets are read by name and never listed. */ -}}
{{- define "helios.namespacedRules" -}}
- apiGroups: [helios.dev]
  resources: [heliosdeployments, heliosmodels]
  verbs: [list, watch]
- apiGroups: [helios.dev]
  resources: [heliosprofiles]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [helios.dev]
  resources: [heliosdeployments/status, heliosmodels/status, heliosprofiles/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  # Read of a Job without pods: its controller says nowhere else why.
  verbs: [list, create]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch, delete]
{{- end -}}
