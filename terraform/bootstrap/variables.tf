variable "location" {
  description = "Azure region of the state."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]+$", var.location))
    error_message = "location must be a region's short name, such as westeurope."
  }
}

variable "unique_suffix" {
  description = "Makes the storage account's name unique in all of Azure."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,6}$", var.unique_suffix))
    error_message = "unique_suffix must be 3 to 6 lower-case letters or digits."
  }
}

variable "deployers" {
  description = "Object ids of who applies terraform/azure by other means than GitHub's federated login: a service principal, a group of people."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.deployers : can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", id))])
    error_message = "deployers must be object ids, such as 00000000-0000-0000-0000-000000000001."
  }
}

variable "github_repository" {
  description = "Repository whose workflows may plan and apply, as GitHub's tokens name it: owner@id/name@id, or owner/name for one made before July 2026 that has not opted in to ids; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null ? true : can(regex("^([A-Za-z0-9-]+@[0-9]+/[A-Za-z0-9._-]+@[0-9]+|[A-Za-z0-9-]+/[A-Za-z0-9._-]+)$", var.github_repository))
    error_message = "github_repository must be written owner@id/name@id, or owner/name."
  }
}

variable "github_environments" {
  description = "GitHub environments whose jobs may apply. Their protection rules are the approval."
  type        = set(string)
  default     = ["staging", "production"]
}
