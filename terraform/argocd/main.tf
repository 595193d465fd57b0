# Argo CD, and the one Application that it starts from. All else in the cluster comes from Git.

locals {
  aks_server_id = "6dae42f8-4368-4678-94ff-3960e28e3630" # AKS's own application in Entra, the same in every tenant
  charts        = "${path.module}/../../charts/argocd"
  root          = file("${local.charts}/roots/${var.environment}.yaml")
}

data "azurerm_kubernetes_cluster" "this" {
  name                = "aks-whisperline-${var.environment}"
  resource_group_name = "rg-whisperline-${var.environment}"
}

resource "helm_release" "argo_cd" {
  name             = "argocd"
  namespace        = "argocd"
  create_namespace = true
  repository       = "https://argoproj.github.io/argo-helm"
  chart            = "argo-cd"
  version          = var.chart_version
  atomic           = true
  timeout          = 900
  values           = [file("${local.charts}/install.yaml")]
}

# Apart from the release above, because Kubernetes knows no Application before Argo CD is there.
resource "helm_release" "root" {
  name      = "whisperline-root"
  namespace = helm_release.argo_cd.namespace
  chart     = "${path.module}/root"
  values    = [yamlencode({ manifests = local.root })]
}
