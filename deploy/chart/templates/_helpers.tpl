{{- define "stigg.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stigg.metadata" -}}
name: {{ .Release.Name }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "stigg.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "stigg.image" -}}
{{- with .Values.image -}}
{{- .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}

{{- define "stigg.replaced" -}}
{{- if not (contains (index . 1) (index . 0)) }}{{ fail (printf "envoy.yaml does not contain: %s" (index . 1)) }}{{ end -}}
{{- replace (index . 1) (index . 2) (index . 0) -}}
{{- end }}

{{- /* The variant of a configuration for IPv6, if the values ask for it. */ -}}
{{- define "stigg.families" -}}
{{- $yaml := index . 1 -}}
{{- if (index . 0).Values.ipv6 }}{{ $yaml = regexReplaceAll "(?m)^.*#ipv4\n" (replace "#ipv6 " "" $yaml) "" }}{{ end -}}
{{- $yaml -}}
{{- end }}

{{- /* How many webhooks a second each replica takes. Stigg's connections do not spread evenly, so the shares are larger than
       a replica's part of the limit, but not than the limit. */ -}}
{{- define "stigg.share" -}}
{{- if .Values.autoscaling.enabled -}}
{{- .Values.rateLimit.perSecond -}}
{{- else -}}
{{- div (mul .Values.rateLimit.perSecond 8) (mul .Values.replicas 5) | min .Values.rateLimit.perSecond | max 1 -}}
{{- end -}}
{{- end }}

{{- /* envoy.yaml in the variants that its first comment describes, with the values in place of its own. */ -}}
{{- define "stigg.envoy" -}}
{{- $yaml := .Files.Get "files/envoy.yaml" | replace "#sds " "" -}}
{{- $yaml = regexReplaceAll "(?m)^.*#env.*\n" $yaml "" -}}
{{- if .Values.tls.secretName }}{{ $yaml = replace "#tls " "" $yaml }}{{ end -}}
{{- $yaml = include "stigg.families" (list . $yaml) -}}
{{- if .Values.rateLimit.service }}
  {{- $yaml = replace "#global " "" $yaml -}}
  {{- $address := splitList ":" .Values.rateLimit.service -}}
  {{- $new := printf "{ address: %s, port_value: %s }" (first $address) (last $address) -}}
  {{- $yaml = include "stigg.replaced" (list $yaml "{ address: ratelimit, port_value: 8081 }" $new) -}}
{{- end -}}
{{- if eq .Values.shell "native" }}
  {{- $yaml = regexReplaceAll "(?m)^.*#wasm\n" (replace "#native " "" $yaml) "" -}}
  {{- $yaml = include "stigg.replaced" (list $yaml "target/native/" "/opt/stigg-segment/") -}}
{{- else -}}
  {{- $yaml = include "stigg.replaced" (list $yaml "target/wasm32-wasip1/release/" "/opt/stigg-segment/") -}}
{{- end -}}
{{- $yaml = include "stigg.replaced" (list $yaml "address: api.segment.io" (printf "address: %s" .Values.segment.host)) -}}
{{- $share := include "stigg.share" . | int -}}
{{- $bucket := printf "{ max_tokens: %d, tokens_per_fill: %d, fill_interval: 1s }" (mul 2 $share) $share -}}
{{- $yaml = include "stigg.replaced" (list $yaml "{ max_tokens: 2000, tokens_per_fill: 1000, fill_interval: 1s }" $bucket) -}}
{{- $own := regexFind "value: '\\{\".*\\}'" $yaml -}}
{{- $config := $own | trimPrefix "value: '" | trimSuffix "'" | mustFromJson -}}
{{- $config = mergeOverwrite $config (dict "source" .Values.source) .Values.config -}}
{{- include "stigg.replaced" (list $yaml $own (printf "value: '%s'" (toJson $config | replace "'" "''"))) -}}
{{- end }}
