resource "azurerm_user_assigned_identity" "cluster" {
  name                = "id-${local.name}-cluster"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_role_assignment" "cluster_network" {
  scope                = azurerm_subnet.nodes.id
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.cluster.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_kubernetes_cluster" "this" {
  #checkov:skip=CKV_AZURE_117:disks are encrypted by the platform and, with host_encryption_enabled, on the host; own keys are a choice of whoever must rotate them
  #checkov:skip=CKV_AZURE_115:operators reach the API from operator_ip_ranges alone, with Entra sign-in; a private API needs a jump host or VPN that not everyone has
  name                              = "aks-${local.name}"
  location                          = azurerm_resource_group.this.location
  resource_group_name               = azurerm_resource_group.this.name
  dns_prefix                        = local.name
  kubernetes_version                = var.kubernetes_version
  sku_tier                          = var.cluster_sku_tier
  automatic_upgrade_channel         = "patch"
  node_os_upgrade_channel           = "NodeImage"
  role_based_access_control_enabled = true
  local_account_disabled            = true # so that kube_config in the state has no credentials
  run_command_enabled               = false
  oidc_issuer_enabled               = true
  workload_identity_enabled         = true
  azure_policy_enabled              = true
  image_cleaner_enabled             = true
  image_cleaner_interval_hours      = 168
  tags                              = local.tags

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.cluster.id]
  }

  azure_active_directory_role_based_access_control {
    azure_rbac_enabled     = true
    admin_group_object_ids = var.operator_group_ids
    tenant_id              = data.azurerm_client_config.current.tenant_id
  }

  api_server_access_profile {
    authorized_ip_ranges = var.operator_ip_ranges
  }

  default_node_pool {
    name                         = "system"
    vm_size                      = var.system_pool.vm_size
    vnet_subnet_id               = azurerm_subnet.nodes.id
    zones                        = local.zones
    auto_scaling_enabled         = true
    min_count                    = var.system_pool.min_count
    max_count                    = var.system_pool.max_count
    max_pods                     = 110
    only_critical_addons_enabled = true
    os_sku                       = "AzureLinux"
    os_disk_type                 = "Ephemeral"
    host_encryption_enabled      = true
    orchestrator_version         = var.kubernetes_version
    temporary_name_for_rotation  = "systemtmp"
    tags                         = local.tags

    upgrade_settings {
      max_surge                     = "1"
      drain_timeout_in_minutes      = 30
      node_soak_duration_in_minutes = 0
    }
  }

  node_provisioning_profile {
    mode = "Manual"
  }

  # Overlay: pods do not use up the subnet. Cilium: the NetworkPolicies of the charts are enforced.
  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
    load_balancer_sku   = "standard"
    outbound_type       = "loadBalancer"
    pod_cidr            = var.network.pods
    service_cidr        = var.network.services
    dns_service_ip      = cidrhost(var.network.services, 10)
  }

  # A GPU node costs whether it works or not: it goes ten minutes after its last pod.
  auto_scaler_profile {
    expander                      = "least-waste"
    scale_down_unneeded           = "10m"
    scale_down_delay_after_add    = "10m"
    max_graceful_termination_sec  = "120"
    skip_nodes_with_system_pods   = true
    skip_nodes_with_local_storage = false
    balance_similar_node_groups   = true
  }

  key_vault_secrets_provider {
    secret_rotation_enabled  = true
    secret_rotation_interval = "2m"
  }

  oms_agent {
    log_analytics_workspace_id      = azurerm_log_analytics_workspace.this.id
    msi_auth_for_monitoring_enabled = true
  }

  monitor_metrics {
    annotations_allowed = null
    labels_allowed      = null
  }

  # Nights before working days, one node at a time; PodDisruptionBudgets keep a ready pod of each deployable.
  maintenance_window_auto_upgrade {
    frequency   = "Weekly"
    interval    = 1
    day_of_week = "Tuesday"
    start_time  = "02:00"
    utc_offset  = "+00:00"
    duration    = 4
  }

  maintenance_window_node_os {
    frequency   = "Weekly"
    interval    = 1
    day_of_week = "Wednesday"
    start_time  = "02:00"
    utc_offset  = "+00:00"
    duration    = 4
  }

  lifecycle {
    ignore_changes = [default_node_pool[0].node_count] # the autoscaler's
  }

  depends_on = [azurerm_role_assignment.cluster_network]
}

resource "azurerm_kubernetes_cluster_node_pool" "cpu" {
  name                        = "cpu"
  kubernetes_cluster_id       = azurerm_kubernetes_cluster.this.id
  vm_size                     = var.cpu_pool.vm_size
  vnet_subnet_id              = azurerm_subnet.nodes.id
  zones                       = local.zones
  mode                        = "User"
  auto_scaling_enabled        = true
  min_count                   = var.cpu_pool.min_count
  max_count                   = var.cpu_pool.max_count
  max_pods                    = 110
  os_sku                      = "AzureLinux"
  os_disk_type                = "Ephemeral"
  host_encryption_enabled     = true
  orchestrator_version        = var.kubernetes_version
  temporary_name_for_rotation = "cputmp"
  tags                        = local.tags

  upgrade_settings {
    max_surge                = "1"
    drain_timeout_in_minutes = 30
  }

  lifecycle {
    ignore_changes = [node_count]
  }
}

resource "azurerm_kubernetes_cluster_node_pool" "gpu" {
  name                    = "gpu"
  kubernetes_cluster_id   = azurerm_kubernetes_cluster.this.id
  vm_size                 = var.gpu_pool.vm_size
  vnet_subnet_id          = azurerm_subnet.nodes.id
  zones                   = var.gpu_pool.zones
  mode                    = "User"
  auto_scaling_enabled    = true
  min_count               = var.gpu_pool.min_count
  max_count               = var.gpu_pool.max_count
  max_pods                = 50
  os_sku                  = "Ubuntu"
  os_disk_type            = "Ephemeral"
  gpu_driver              = "Install"
  host_encryption_enabled = true
  # The taint keeps other pods off; the label is what Triton selects in charts/argocd/environments.
  node_taints                 = ["sku=gpu:NoSchedule"]
  node_labels                 = { sku = "gpu" }
  orchestrator_version        = var.kubernetes_version
  temporary_name_for_rotation = "gputmp"
  tags                        = local.tags

  # One more GPU node while one is replaced: Triton's last ready pod never goes before its successor is ready.
  upgrade_settings {
    max_surge                = "1"
    drain_timeout_in_minutes = 30
  }

  lifecycle {
    ignore_changes = [node_count]
  }
}

resource "azurerm_role_assignment" "operators" {
  for_each             = toset(var.operator_group_ids)
  scope                = azurerm_kubernetes_cluster.this.id
  role_definition_name = "Azure Kubernetes Service RBAC Cluster Admin"
  principal_id         = each.value
  principal_type       = "Group"
}
