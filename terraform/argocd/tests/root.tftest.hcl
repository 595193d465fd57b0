# Which Application Argo CD starts from. The providers are mocked.

mock_provider "helm" {}

mock_provider "azurerm" {
  mock_data "azurerm_kubernetes_cluster" {
    defaults = {
      kube_config = [{
        host                   = "https://example.invalid"
        cluster_ca_certificate = ""
        client_certificate     = ""
        client_key             = ""
        username               = ""
        password               = ""
      }]
    }
  }
}

run "each_environment_follows_its_own_root" {
  command = plan

  variables {
    environment = "staging"
  }

  assert {
    condition     = strcontains(yamldecode(helm_release.root.values[0]).manifests, "environments/staging/")
    error_message = "staging does not follow staging's values"
  }

  assert {
    condition     = helm_release.root.namespace == "argocd" && data.azurerm_kubernetes_cluster.this.name == "aks-whisperline-staging"
    error_message = "the root is put into another cluster or namespace"
  }
}

run "unknown_environment" {
  command         = plan
  expect_failures = [var.environment]
  variables { environment = "test" }
}
