variable "environment" {
  description = "Name of the environment: which of charts/argocd/roots Argo CD follows."
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "environment must be staging or production: charts/argocd has roots for these two."
  }
}

variable "kubelogin" {
  description = "How kubelogin signs in: azurecli (a person), spn (ARM_CLIENT_ID and ARM_CLIENT_SECRET), workloadidentity (federated)."
  type        = string
  default     = "azurecli"

  validation {
    condition     = contains(["azurecli", "spn", "workloadidentity"], var.kubelogin)
    error_message = "kubelogin must be azurecli, spn or workloadidentity."
  }
}

variable "chart_version" {
  description = "Version of argo-helm's chart argo-cd."
  type        = string
  default     = "10.4.1"

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.chart_version))
    error_message = "chart_version must be a full version, such as 10.4.1."
  }
}
