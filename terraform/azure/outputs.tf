output "resource_group" {
  description = "Name of the resource group; terraform/argocd needs it."
  value       = azurerm_resource_group.this.name
}

output "cluster" {
  description = "Name of the cluster; terraform/argocd and `az aks get-credentials` need it."
  value       = azurerm_kubernetes_cluster.this.name
}

output "tenant_id" {
  description = "Tenant of the vault and the identities, for a SecretStore or SecretProviderClass."
  value       = data.azurerm_client_config.current.tenant_id
}

output "key_vault" {
  description = "Name and address of the vault that the deployables' secrets are written to."
  value       = { name = azurerm_key_vault.this.name, uri = azurerm_key_vault.this.vault_uri }
}

output "identity_client_ids" {
  description = "Client id of each workload identity, for the annotation azure.workload.identity/client-id."
  value       = { for purpose, identity in azurerm_user_assigned_identity.workload : purpose => identity.client_id }
}

output "prometheus_query_endpoint" {
  description = "Where KEDA's triggers query."
  value       = azurerm_monitor_workspace.this.query_endpoint
}

output "storage" {
  description = "Address of each container: exported models, PostgreSQL's backups."
  value       = { for name, container in azurerm_storage_container.this : name => "${trimsuffix(azurerm_storage_account.this.primary_blob_endpoint, "/")}/${name}" }
}

output "postgresql_host" {
  description = "Host of the managed PostgreSQL; null when charts/data makes one."
  value       = one(azurerm_postgresql_flexible_server.this[*].fqdn)
}

output "kafka_bootstrap" {
  description = "Bootstrap address of Event Hubs; null when charts/data makes Kafka."
  value       = var.event_hubs == null ? null : "${azurerm_eventhub_namespace.this[0].name}.servicebus.windows.net:9093"
}
