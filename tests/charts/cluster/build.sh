#!/usr/bin/env bash
# Lay kube-apiserver, etcd and the definitions of custom resources into a folder: Go 1.26, once ten minutes of two cores.
# Definitions come from their projects' own Go modules; what is not written in Go is made from tests/charts/schemas.
set -euo pipefail

target=$(realpath -m "${1:?usage: build.sh FOLDER}")
cd "$(dirname "$0")"
kubernetes=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
IFS=. read -r _ minor _ <<<"$kubernetes"

mkdir -p "$target/crds"
flags="-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes"
flags+=" -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$minor"
# Unless told otherwise the API server takes the version that it emulates from its own.
GOBIN=$target CGO_ENABLED=0 nice go install -trimpath -ldflags "$flags" tool
mv -f "$target/server" "$target/etcd"

definitions() { # module@version, then files below it
  local module folder
  module=$1
  shift
  folder=$(cd "$target" && GOFLAGS=-mod=mod go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  for file in "$@"; do
    install -m 644 "$folder/$file" "$target/crds/$(basename "$file")"
  done
}

definitions github.com/argoproj/argo-cd/v3@v3.5.7 manifests/crds/application-crd.yaml manifests/crds/appproject-crd.yaml
definitions github.com/kedacore/keda/v2@v2.21.0 \
  config/crd/bases/keda.sh_scaledobjects.yaml config/crd/bases/keda.sh_triggerauthentications.yaml
definitions github.com/prometheus-operator/prometheus-operator@v0.85.0 \
  example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml \
  example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml
definitions sigs.k8s.io/gateway-api@v1.6.3 config/crd/standard/gateway.networking.k8s.io_httproutes.yaml
definitions github.com/external-secrets/external-secrets@v1.3.2 \
  config/crds/bases/external-secrets.io_externalsecrets.yaml \
  config/crds/bases/generators.external-secrets.io_passwords.yaml
definitions github.com/cloudnative-pg/plugin-barman-cloud@v0.15.0 \
  config/crd/bases/barmancloud.cnpg.io_objectstores.yaml
