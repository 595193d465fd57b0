output "storage_account_name" {
  description = "For `terraform init -backend-config=storage_account_name=...` of terraform/azure and terraform/argocd."
  value       = azurerm_storage_account.this.name
}

output "subscription_id" {
  description = "ARM_SUBSCRIPTION_ID of the workflows."
  value       = data.azurerm_subscription.current.subscription_id
}

output "tenant_id" {
  description = "ARM_TENANT_ID of the workflows."
  value       = data.azurerm_subscription.current.tenant_id
}

output "github_client_ids" {
  description = "ARM_CLIENT_ID of the workflow that plans, and of the one that applies."
  value       = { for access, identity in azurerm_user_assigned_identity.github : access => identity.client_id }
}
