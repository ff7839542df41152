{{/*
The pod template of both kinds. What Sheave takes over while it runs must not be in here, or a new listener would
restart every pod: so there is no hash of the whole configuration, and no containerPort of a listener.
*/}}
{{- define "sheave.pod" -}}
metadata:
  labels:
    {{- include "sheave.podLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: sheave
    checksum/start-config: {{ include "sheave.startConfig" . | sha256sum }}
    {{- $scraped := dict "prometheus.io/scrape" "true" "prometheus.io/port" (include "sheave.adminPort" .) "prometheus.io/path" "/metrics" }}
    {{- with merge (dict) .Values.podAnnotations (ternary $scraped (dict) .Values.metrics.annotations.enabled) }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "sheave.serviceAccountName" . }}
  # Only discovery, and certificates in Secrets, need the API server.
  automountServiceAccountToken: {{ not (empty (include "sheave.usesApi" .)) }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "sheave.gracePeriod" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile:
      {{- toYaml .Values.seccompProfile | nindent 6 }}
    {{- if include "sheave.hasLowPort" . }}
    sysctls: # a listener's port is below 1024, and the process is not root
      - name: net.ipv4.ip_unprivileged_port_start
        value: "0"
    {{- end }}
  containers:
    - name: sheave
      image: {{ include "sheave.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, --config, /etc/sheave/config.yaml]
      env:
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        - name: POD_UID
          valueFrom: {fieldRef: {fieldPath: metadata.uid}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: SHEAVE_NODE_NAME
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
        # Kubernetes gives pods their node's label from 1.35 on; before that it is empty, and no zone is preferred.
        - name: SHEAVE_ZONE
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['topology.kubernetes.io/zone']"}}
        # Whose traces they are. Kubernetes puts in what is named above.
        - name: OTEL_SERVICE_NAME
          value: {{ include "sheave.fullname" . | quote }}
        - name: OTEL_RESOURCE_ATTRIBUTES
          value: "service.namespace=$(POD_NAMESPACE),service.instance.id=$(POD_NAMESPACE).$(POD_NAME).sheave,\
            k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),k8s.pod.uid=$(POD_UID),\
            k8s.node.name=$(SHEAVE_NODE_NAME),k8s.container.name=sheave"
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: admin
          containerPort: {{ include "sheave.adminPort" . }}
      startupProbe:
        httpGet: {path: /startupz, port: admin}
        {{- toYaml .Values.startupProbe | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        {{- toYaml .Values.readinessProbe | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml .Values.livenessProbe | nindent 8 }}
      {{- with .Values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      # What is wrong with a configuration is the last thing a failed start prints.
      terminationMessagePolicy: FallbackToLogsOnError
      volumeMounts:
        - name: config # the directory: a file mounted with subPath would never change
          mountPath: /etc/sheave
          readOnly: true
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "sheave.fullname" . | quote }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if eq .Values.kind "Deployment" }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- $ours := dict "labelSelector" (dict "matchLabels" (include "sheave.selectorLabels" $ | fromYaml)) }}
    {{- range . }}
    {{- toYaml (list (merge (dict) . $ours)) | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* The API takes rollingUpdate beside no other type. */}}
{{- define "sheave.updateStrategy" -}}
{{- if eq .Values.updateStrategy.type "RollingUpdate" }}
{{- toYaml .Values.updateStrategy }}
{{- else if eq .Values.updateStrategy.type (ternary "Recreate" "OnDelete" (eq .Values.kind "Deployment")) }}
{{- toYaml (omit .Values.updateStrategy "rollingUpdate") }}
{{- else }}
{{- fail (printf "updateStrategy.type: a %s has no %s; write RollingUpdate, or %s" .Values.kind .Values.updateStrategy.type (ternary "Recreate" "OnDelete" (eq .Values.kind "Deployment"))) }}
{{- end }}
{{- end }}
