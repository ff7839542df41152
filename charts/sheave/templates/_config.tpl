{{/*
What the templates read out of the configuration: ports, times, namespaces. values.schema.json has checked
its form by then; what a schema cannot tell fails here, with the field and what to write.
*/}}

{{/* The port of an IP address with a port. Takes (dict "address" "[::]:80" "field" "what it is called"). */}}
{{- define "sheave.port" -}}
{{- if not (regexMatch "^(\\[[0-9A-Fa-f:.]+\\]|[0-9]{1,3}(\\.[0-9]{1,3}){3}):[0-9]{1,5}$" .address) }}
{{- fail (printf "%s: %q is not an IP address with a port; write \"[::]:5432\" for every address" .field .address) }}
{{- end }}
{{- $port := regexFind "[0-9]+$" .address | atoi }}
{{- if or (lt $port 1) (gt $port 65535) }}
{{- fail (printf "%s: %q has no port from 1 to 65535" .field .address) }}
{{- end }}
{{- if regexMatch "^(127\\.|\\[(::ffff:127\\.|::1\\]|[0:]*:0*1\\]))" (lower .address) }}
{{- fail (printf "%s: %s is reached from inside the pod only; write \"[::]:%d\" for every address" .field .address $port) }}
{{- end }}
{{- $port }}
{{- end }}

{{- define "sheave.adminPort" -}}
{{- $address := dig "admin" "address" "127.0.0.1:9901" .Values.config }}
{{- include "sheave.port" (dict "address" $address "field" "config.admin.address (the kubelet probes it)") }}
{{- end }}

{{/*
The Service's ports, as a JSON list of {name, port, protocol}. Listeners that share a port (on different addresses)
share an entry, under the first one's name.
*/}}
{{- define "sheave.servicePorts" -}}
{{- $ports := list }}
{{- $byPort := dict }}
{{- $byName := dict }}
{{- range $i, $listener := .Values.config.listeners }}
{{- $field := printf "config.listeners[%d].address (listener %q)" $i $listener.name }}
{{- $port := include "sheave.port" (dict "address" $listener.address "field" $field) }}
{{- if not (hasKey $byPort $port) }}
{{- /* Names of listeners may have characters that names of ports may not. */}}
{{- $name := regexReplaceAll "[^a-z0-9]+" $listener.name "-" | trimAll "-" | trunc 63 | trimSuffix "-" }}
{{- if or (not $name) (hasKey $byName $name) }}
{{- $name = printf "%s-%s" (trunc 57 $name) $port | trimPrefix "-" }}
{{- end }}
{{- $_ := set $byPort $port true }}
{{- $_ := set $byName $name true }}
{{- $ports = append $ports (dict "name" $name "port" (atoi $port) "protocol" "TCP") }}
{{- end }}
{{- end }}
{{- toJson $ports }}
{{- end }}

{{/* Whether a listener needs a port that only root may bind without a sysctl. */}}
{{- define "sheave.hasLowPort" -}}
{{- range include "sheave.servicePorts" . | fromJsonArray }}
{{- if lt (int .port) 1024 }}true{{ end }}
{{- end }}
{{- end }}

{{/* Namespaces of the Services that upstreams name, each once, sorted, as a JSON list. */}}
{{- define "sheave.discoveryNamespaces" -}}
{{- $namespaces := list }}
{{- range .Values.config.upstreams }}
{{- with .service }}
{{- $namespaces = append $namespaces .namespace }}
{{- end }}
{{- end }}
{{- uniq $namespaces | sortAlpha | toJson }}
{{- end }}

{{/* {secret: ns/name} or {configMap: ns/name} of a list, added to a dict of namespaces. Takes (dict "refs" list "found" dict). */}}
{{- define "sheave.addObjects" -}}
{{- $found := .found }}
{{- range .refs }}
{{- range $kind, $ref := . }}
{{- if has $kind (list "secret" "configMap") }}
{{- $parts := splitList "/" $ref }}
{{- $namespace := first $parts }}
{{- if not (hasKey $found $namespace) }}
{{- $_ := set $found $namespace (dict "secret" list "configMap" list) }}
{{- end }}
{{- $names := get $found $namespace }}
{{- $_ := set $names $kind (append (get $names $kind) (last $parts) | uniq | sortAlpha) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Secrets and ConfigMaps that TLS needs, as JSON: {namespace: {secret: [names], configMap: [names]}}.
*/}}
{{- define "sheave.tlsObjects" -}}
{{- $found := dict }}
{{- range .Values.config.listeners }}
{{- with .tls }}
{{- include "sheave.addObjects" (dict "refs" .certificateRefs "found" $found) }}
{{- with .clientValidation }}
{{- include "sheave.addObjects" (dict "refs" .caCertificateRefs "found" $found) }}
{{- end }}
{{- end }}
{{- end }}
{{- range .Values.config.upstreams }}
{{- with .tls }}
{{- with .validation }}
{{- include "sheave.addObjects" (dict "refs" .caCertificateRefs "found" $found) }}
{{- end }}
{{- with .clientCertificateRef }}
{{- include "sheave.addObjects" (dict "refs" (list .) "found" $found) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* Whether pods have to talk to the API server. */}}
{{- define "sheave.usesApi" -}}
{{- if or (include "sheave.discoveryNamespaces" . | fromJsonArray) (include "sheave.tlsObjects" . | fromJson) }}true{{ end }}
{{- end }}

{{/* A Gateway API duration (1h30m, 250ms) in milliseconds. Takes (dict "duration" "5s" "field" "its name"). */}}
{{- define "sheave.milliseconds" -}}
{{- if not (regexMatch "^([0-9]{1,5}(h|m|s|ms)){1,4}$" .duration) }}
{{- fail (printf "%s: %q is not a duration; write whole numbers with a unit each, like 250ms, 30s or 1h30m" .field .duration) }}
{{- end }}
{{- $units := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 }}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+[a-z]+" .duration -1 }}
{{- $sum = add $sum (mul (regexFind "[0-9]+" . | atoi) (get $units (regexFind "[a-z]+" .))) }}
{{- end }}
{{- $sum }}
{{- end }}

{{/* Seconds from the start of a pod's end until its last connection is cut. Sheave drains by itself after SIGTERM. */}}
{{- define "sheave.drainSeconds" -}}
{{- $delay := dig "drain" "delay" "5s" .Values.config }}
{{- $timeout := dig "drain" "timeout" "60s" .Values.config }}
{{- $delay = include "sheave.milliseconds" (dict "duration" $delay "field" "config.drain.delay") }}
{{- $timeout = include "sheave.milliseconds" (dict "duration" $timeout "field" "config.drain.timeout") }}
{{- $sleep := dig "preStop" "sleep" "seconds" 0 .Values.lifecycle }}
{{- add (div (add $delay $timeout 999) 1000) $sleep }}
{{- end }}

{{- define "sheave.gracePeriod" -}}
{{- $needed := include "sheave.drainSeconds" . | atoi }}
{{- $given := .Values.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $given }}
{{- /* 15: the last log lines, and a scheduler that is late. */}}
{{- add $needed 15 }}
{{- else if le (int $given) $needed }}
{{- fail (printf "terminationGracePeriodSeconds: %d s end before a pod has drained, which takes %d s (config.drain.delay + config.drain.timeout + lifecycle.preStop.sleep); leave it out, or write at least %d" (int $given) $needed (add $needed 15)) }}
{{- else }}
{{- int $given }}
{{- end }}
{{- end }}

{{/*
The sections that Sheave takes at its start only. They are in the pods' template as a hash, so that a change of one of them
replaces the pods, and a change of anything else does not.
*/}}
{{- define "sheave.startConfig" -}}
{{- omit .Values.config "drain" "metrics" "listeners" "routes" "upstreams" | toJson }}
{{- end }}

{{/* Contradictions between values, each with what to do. */}}
{{- define "sheave.checkValues" -}}
{{- with .Values.config }}
{{- range list "listeners" "routes" "upstreams" }}
{{- if not (get $.Values.config .) }}
{{- fail (printf "config.%s is empty: Sheave needs at least one listener, one route and one upstream, for example\nconfig:\n  listeners: [{name: web, address: \"[::]:8080\"}]\n  routes: [{name: web, listener: web, backendRefs: [{upstream: web}]}]\n  upstreams: [{name: web, service: {namespace: shop, name: web, port: 80}}]" .) }}
{{- end }}
{{- end }}
{{- $listeners := dict }}
{{- range $i, $listener := .listeners }}
{{- $_ := set $listeners $listener.name true }}
{{- if hasSuffix (printf ":%s" (include "sheave.adminPort" $)) $listener.address }}
{{- fail (printf "config.listeners[%d].address (listener %q): %s has the port of config.admin.address; write another one here or there" $i $listener.name $listener.address) }}
{{- end }}
{{- end }}
{{- $upstreams := dict }}
{{- range .upstreams }}{{ $_ := set $upstreams .name true }}{{ end }}
{{- range $i, $route := .routes }}
{{- if not (hasKey $listeners $route.listener) }}
{{- fail (printf "config.routes[%d].listener (route %q): there is no listener %q; there are: %s" $i $route.name $route.listener (keys $listeners | sortAlpha | join ", ")) }}
{{- end }}
{{- range $route.backendRefs }}
{{- if not (hasKey $upstreams .upstream) }}
{{- fail (printf "config.routes[%d].backendRefs (route %q): there is no upstream %q; there are: %s" $i $route.name .upstream (keys $upstreams | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- /* What the rest of the file tells. */}}
{{- include "sheave.checkNames" . }}
{{- include "sheave.checkUpstreams" . }}
{{- if and .Values.autoscaling.enabled (ne .Values.kind "Deployment") }}
{{- fail "autoscaling.enabled: only a Deployment can be scaled; leave it out, or write kind: Deployment" }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "metrics.serviceMonitor.enabled: there is no Service for it; write metrics.service.enabled: true too, or use metrics.podMonitor" }}
{{- end }}
{{- if and (eq .Values.seccompProfile.type "Localhost") (not .Values.seccompProfile.localhostProfile) }}
{{- fail "seccompProfile.localhostProfile: missing; write the file's path below the kubelet's seccomp folder, like profiles/sheave.json" }}
{{- end }}
{{- end }}

{{/* Names and addresses that appear twice, and listeners that lead nowhere. */}}
{{- define "sheave.checkNames" -}}
{{- range $list := list "listeners" "routes" "upstreams" }}
{{- $seen := dict }}
{{- range $i, $item := get $.Values.config $list }}
{{- if hasKey $seen $item.name }}
{{- fail (printf "config.%s[%d].name: %q is already config.%s[%d]; write another name" $list $i $item.name $list (get $seen $item.name)) }}
{{- end }}
{{- $_ := set $seen $item.name $i }}
{{- end }}
{{- end }}
{{- $addresses := dict }}
{{- $routed := dict }}
{{- range .Values.config.routes }}{{ $_ := set $routed .listener true }}{{ end }}
{{- range $i, $listener := .Values.config.listeners }}
{{- $first := get $addresses $listener.address | default $listener }}
{{- if and (ne $first.name $listener.name) (not (and (eq ($first.protocol | default "TCP") "TLS") (eq ($listener.protocol | default "TCP") "TLS"))) }}
{{- fail (printf "config.listeners[%d].address (listener %q): %s is already that of listener %q, which only listeners with protocol TLS can share; write another address or port" $i $listener.name $listener.address $first.name) }}
{{- end }}
{{- $_ := set $addresses $listener.address $first }}
{{- if not (hasKey $routed $listener.name) }}
{{- fail (printf "config.listeners[%d] (listener %q): no route leads from it; add one like {name: %s, listener: %s, backendRefs: [{upstream: ...}]}, or remove it" $i $listener.name $listener.name $listener.name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where endpoints come from, and whether a connection can go to any. */}}
{{- define "sheave.checkUpstreams" -}}
{{- $octet := "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])" }}
{{- $socket := printf "^(\\[[0-9A-Fa-f:.]+\\]|%s(\\.%s){3}):[1-9][0-9]{0,4}$" $octet $octet }}
{{- range $i, $upstream := .Values.config.upstreams }}
{{- $field := printf "config.upstreams[%d] (upstream %q)" $i $upstream.name }}
{{- if and $upstream.service $upstream.endpoints }}
{{- fail (printf "%s: it has both endpoints and a service; keep one of the two" $field) }}
{{- else if not (or $upstream.service $upstream.endpoints) }}
{{- fail (printf "%s: it has no endpoints; write at least one, like endpoints: [{address: \"10.0.0.7:5432\"}], or the Service to follow, like service: {namespace: db, name: pg, port: 5432}" $field) }}
{{- end }}
{{- range $n, $endpoint := $upstream.endpoints }}
{{- if not (regexMatch $socket $endpoint.address) }}
{{- fail (printf "%s.endpoints[%d].address: %q is not an IP address with a port; write one like \"10.0.0.7:5432\" or \"[fd00::7]:5432\"" $field $n $endpoint.address) }}
{{- end }}
{{- end }}
{{- include "sheave.checkWeights" (dict "items" $upstream.endpoints "field" (printf "%s.endpoints" $field)) }}
{{- end }}
{{- range $i, $route := .Values.config.routes }}
{{- include "sheave.checkWeights" (dict "items" $route.backendRefs "field" (printf "config.routes[%d].backendRefs (route %q)" $i $route.name)) }}
{{- end }}
{{- end }}

{{/* Takes (dict "items" a list that may have weights "field" its name). */}}
{{- define "sheave.checkWeights" -}}
{{- $sum := 0 }}
{{- range .items }}{{ $sum = add $sum (dig "weight" 1 .) }}{{ end }}
{{- if and .items (eq (int $sum) 0) }}
{{- fail (printf "%s: every weight is 0, so no connection could go anywhere; write a weight of at least 1" .field) }}
{{- end }}
{{- end }}
