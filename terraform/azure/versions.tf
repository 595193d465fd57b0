terraform {
  # 1.11 has write-only arguments and ephemeral variables, in Terraform and in OpenTofu.
  required_version = ">= 1.11.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "5.10.0"
    }
  }

  # Completed at `init` by environments/*.backend.hcl. Who may sign in comes from ARM_* variables, as for the provider.
  backend "azurerm" {
    use_azuread_auth = true
  }
}

# Signs in from the environment: ARM_CLIENT_ID with ARM_CLIENT_SECRET, or with ARM_USE_OIDC, or the Azure CLI.
# Registers no resource providers: terraform/bootstrap has done it.
provider "azurerm" {
  storage_use_azuread = true

  features {
    # Nothing here speaks to a storage account itself, so a runner outside its network can plan and apply.
    storage {
      data_plane_available = false
    }
  }
}
