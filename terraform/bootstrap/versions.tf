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
  storage_use_azuread            = true
  resource_providers_to_register = ["Microsoft.ManagedIdentity", "Microsoft.Storage"]

  features {
    storage {
      data_plane_available = false
    }
  }
}
