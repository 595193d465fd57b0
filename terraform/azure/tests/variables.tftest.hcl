# A wrong value is refused by the variable's name, before anything is planned.

mock_provider "azurerm" {}

variables {
  environment        = "staging"
  location           = "westeurope"
  unique_suffix      = "test"
  operator_ip_ranges = ["198.51.100.0/24"]
  operator_group_ids = ["00000000-0000-0000-0000-000000000001"]
}

run "environment" {
  command         = plan
  expect_failures = [var.environment]
  variables { environment = "prod" }
}

run "location" {
  command         = plan
  expect_failures = [var.location]
  variables { location = "West Europe" }
}

run "unique_suffix_too_long_for_a_vault" {
  command         = plan
  expect_failures = [var.unique_suffix]
  variables { unique_suffix = "abcdefg" }
}

run "network_not_a_range" {
  command         = plan
  expect_failures = [var.network]
  variables { network = { nodes = "10.40.0.0" } }
}

run "network_of_pods_over_that_of_nodes" {
  command         = plan
  expect_failures = [var.network]
  variables { network = { pods = "10.40.128.0/17" } }
}

run "operators_from_anywhere" {
  command         = plan
  expect_failures = [var.operator_ip_ranges]
  variables { operator_ip_ranges = ["0.0.0.0/0"] }
}

run "operators_from_nowhere" {
  command         = plan
  expect_failures = [var.operator_ip_ranges]
  variables { operator_ip_ranges = [] }
}

run "operators_by_name" {
  command         = plan
  expect_failures = [var.operator_group_ids]
  variables { operator_group_ids = ["platform-team"] }
}

run "kubernetes_without_image_volumes" {
  command         = plan
  expect_failures = [var.kubernetes_version]
  variables { kubernetes_version = "1.34" }
}

run "pool_that_shrinks_below_its_least" {
  command         = plan
  expect_failures = [var.cpu_pool]
  variables { cpu_pool = { min_count = 4, max_count = 3 } }
}

run "gpu_pool_without_gpu" {
  command         = plan
  expect_failures = [var.gpu_pool]
  variables { gpu_pool = { vm_size = "Standard_D4ds_v5" } }
}

run "service_account_without_namespace" {
  command         = plan
  expect_failures = [var.service_accounts]
  variables { service_accounts = { metrics = ["keda-operator"] } }
}

run "storage_replication" {
  command         = plan
  expect_failures = [var.storage_replication]
  variables { storage_replication = "Twice" }
}

run "log_retention_days" {
  command         = plan
  expect_failures = [var.log_retention_days]
  variables { log_retention_days = 7 }
}

run "postgresql_version" {
  command         = plan
  expect_failures = [var.postgresql]
  variables {
    postgresql          = { version = "11" }
    postgresql_password = "0123456789abcdef"
  }
}

run "postgresql_password_too_short" {
  command         = plan
  expect_failures = [var.postgresql_password]
  variables {
    postgresql          = {}
    postgresql_password = "short"
  }
}

run "postgresql_without_a_password" {
  command         = plan
  expect_failures = [var.postgresql_password]
  variables {
    postgresql          = {}
    postgresql_password = ""
  }
}

run "a_secret_that_is_not_set_is_no_password" {
  command = plan
  variables { postgresql_password = "" }
}

run "event_hubs_processing_units" {
  command         = plan
  expect_failures = [var.event_hubs]
  variables { event_hubs = { processing_units = 3 } }
}

run "clients_from_nowhere" {
  command         = plan
  expect_failures = [var.client_ip_ranges]
  variables { client_ip_ranges = [] }
}
