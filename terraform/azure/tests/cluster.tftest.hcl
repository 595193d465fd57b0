# What an environment is made of. The provider is mocked: nothing is asked of Azure.

mock_provider "azurerm" {
  mock_data "azurerm_client_config" {
    defaults = {
      tenant_id = "00000000-0000-0000-0000-00000000000a"
    }
  }
}

variables {
  environment        = "production"
  location           = "westeurope"
  unique_suffix      = "test"
  operator_ip_ranges = ["198.51.100.0/24"]
  operator_group_ids = ["00000000-0000-0000-0000-000000000001"]
}

run "gpu_nodes_come_only_when_asked_for" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.gpu.min_count == 0 && azurerm_kubernetes_cluster_node_pool.gpu.auto_scaling_enabled
    error_message = "the GPU pool does not scale from zero"
  }

  assert {
    condition     = contains(azurerm_kubernetes_cluster_node_pool.gpu.node_taints, "sku=gpu:NoSchedule") && azurerm_kubernetes_cluster_node_pool.gpu.node_labels["sku"] == "gpu"
    error_message = "the GPU pool is not tainted and labelled sku=gpu"
  }
}

run "the_cluster_has_no_credentials_of_its_own" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.local_account_disabled && azurerm_kubernetes_cluster.this.azure_active_directory_role_based_access_control[0].azure_rbac_enabled
    error_message = "kube_config would hold an administrator's credentials"
  }

  assert {
    condition     = !azurerm_storage_account.this.shared_access_key_enabled && !azurerm_log_analytics_workspace.this.local_authentication_enabled
    error_message = "keys in the state would open storage or logs"
  }
}

run "network_policies_are_enforced_and_pods_may_be_identities" {
  command = plan

  assert {
    condition     = azurerm_kubernetes_cluster.this.network_profile[0].network_policy == "cilium" && azurerm_kubernetes_cluster.this.network_profile[0].network_plugin_mode == "overlay"
    error_message = "the charts' NetworkPolicies would not be enforced"
  }

  assert {
    condition     = azurerm_kubernetes_cluster.this.oidc_issuer_enabled && azurerm_kubernetes_cluster.this.workload_identity_enabled
    error_message = "workload identity is off"
  }

  assert {
    condition     = azurerm_kubernetes_cluster.this.network_profile[0].dns_service_ip == "10.41.0.10"
    error_message = "the address of DNS is not in the range of services"
  }
}

run "each_identity_is_federated_with_its_own_service_accounts" {
  command = apply

  variables {
    service_accounts = { backups = ["data/one", "data/two"] }
  }

  assert {
    condition     = azurerm_federated_identity_credential.workload["backups-data-two"].subject == "system:serviceaccount:data:two"
    error_message = "a service account is not named as Kubernetes' tokens name it"
  }

  assert {
    condition     = azurerm_federated_identity_credential.workload["backups-data-two"].user_assigned_identity_id == azurerm_user_assigned_identity.workload["backups"].id
    error_message = "a service account became another identity"
  }

  assert {
    condition     = length(azurerm_federated_identity_credential.workload) == 2 + length(var.service_accounts.secrets) + length(var.service_accounts.metrics)
    error_message = "the other purposes lost their defaults"
  }

  assert {
    condition     = azurerm_role_assignment.workload["metrics"].role_definition_name == "Monitoring Data Reader" && azurerm_role_assignment.workload["metrics"].scope == azurerm_monitor_workspace.this.id
    error_message = "KEDA may not query"
  }
}

run "only_production_is_locked" {
  command = plan

  assert {
    condition     = toset(keys(azurerm_management_lock.data)) == toset(["storage"])
    error_message = "production's backups can be deleted by one click"
  }
}

run "staging_is_not_locked" {
  command = plan

  variables {
    environment = "staging"
  }

  assert {
    condition     = length(azurerm_management_lock.data) == 0
    error_message = "staging cannot be removed"
  }
}

run "only_operators_reach_the_ingress_until_somebody_decides_otherwise" {
  command = plan

  assert {
    condition     = alltrue([for rule in azurerm_network_security_group.nodes.security_rule : rule.source_address_prefixes == toset(["198.51.100.0/24"])])
    error_message = "strangers could transcribe"
  }
}

run "an_upgrade_of_kubernetes_takes_the_nodes_along" {
  command = plan

  variables {
    kubernetes_version = "1.37"
  }

  assert {
    condition = toset([
      azurerm_kubernetes_cluster.this.kubernetes_version,
      azurerm_kubernetes_cluster.this.default_node_pool[0].orchestrator_version,
      azurerm_kubernetes_cluster_node_pool.cpu.orchestrator_version,
      azurerm_kubernetes_cluster_node_pool.gpu.orchestrator_version,
    ]) == toset(["1.37"])
    error_message = "a pool stays behind"
  }
}
