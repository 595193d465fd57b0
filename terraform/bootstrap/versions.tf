terraform {
  required_version = ">= 1.11.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "5.10.0"
    }
  }
}

# Signs in from the environment, as an owner of the subscription: once, by hand.
provider "azurerm" {
  storage_use_azuread = true

  # Those of terraform/azure, too: a plan on a pull request may only read, so it cannot register them.
  resource_providers_to_register = [
    "Microsoft.AlertsManagement",
    "Microsoft.ContainerService",
    "Microsoft.DBforPostgreSQL",
    "Microsoft.EventHub",
    "Microsoft.Insights",
    "Microsoft.KeyVault",
    "Microsoft.ManagedIdentity",
    "Microsoft.Monitor",
    "Microsoft.Network",
    "Microsoft.OperationalInsights",
    "Microsoft.Storage",
  ]

  features {
    storage {
      data_plane_available = false
    }
  }
}
