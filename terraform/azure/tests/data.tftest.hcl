# The optional managed database and broker.

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

run "neither_is_made_unless_asked_for" {
  command = plan

  assert {
    condition     = length(azurerm_postgresql_flexible_server.this) + length(azurerm_eventhub_namespace.this) + length(azurerm_subnet.postgresql) == 0
    error_message = "a managed service is made though none was asked for"
  }

  assert {
    condition     = output.postgresql_host == null && output.kafka_bootstrap == null
    error_message = "an output names what is not there"
  }

  assert {
    condition     = toset(keys(azurerm_private_endpoint.this)) == toset(["storage", "vault"])
    error_message = "the private endpoints are not those of vault and storage"
  }
}

run "postgresql_is_private_and_survives_a_zone" {
  command = plan

  variables {
    postgresql          = {}
    postgresql_password = "0123456789abcdef"
  }

  assert {
    condition     = !azurerm_postgresql_flexible_server.this[0].public_network_access_enabled && azurerm_postgresql_flexible_server.this[0].high_availability[0].mode == "ZoneRedundant"
    error_message = "PostgreSQL is public, or in one zone"
  }

  assert {
    condition     = toset(keys(azurerm_management_lock.data)) == toset(["postgresql", "storage"])
    error_message = "PostgreSQL can be deleted by one click"
  }

  assert {
    condition     = azurerm_postgresql_flexible_server.this[0].administrator_password == null
    error_message = "the password would be in the state"
  }

  assert {
    condition     = contains(keys(azurerm_monitor_diagnostic_setting.this), "postgresql")
    error_message = "PostgreSQL's log goes nowhere"
  }
}

run "a_burstable_server_has_no_second_zone" {
  command = plan

  variables {
    postgresql          = { sku_name = "B_Standard_B2s" }
    postgresql_password = "0123456789abcdef"
  }

  expect_failures = [var.postgresql]
}

run "a_small_server_is_allowed_in_one_zone" {
  command = plan

  variables {
    postgresql          = { sku_name = "B_Standard_B2s", zone_redundant = false }
    postgresql_password = "0123456789abcdef"
  }

  assert {
    condition     = length(azurerm_postgresql_flexible_server.this[0].high_availability) == 0
    error_message = "high availability was asked of a burstable server"
  }
}

run "event_hubs_keep_the_progress_log_compacted" {
  command = plan

  variables {
    event_hubs = { audio_partitions = 32, reply_partitions = 16 }
  }

  assert {
    condition     = azurerm_eventhub_namespace.this[0].sku == "Premium" && !azurerm_eventhub_namespace.this[0].public_network_access_enabled
    error_message = "the namespace is public, or of a tier that forgets dead letters after a week"
  }

  assert {
    condition     = azurerm_eventhub.this["session_progress"].retention_description[0].cleanup_policy == "Compact" && azurerm_eventhub.this["session_progress"].partition_count == 32
    error_message = "session_progress is not compacted, or has other partitions than audio_chunks"
  }

  assert {
    condition     = azurerm_eventhub.this["transcriptions"].partition_count == 16 && azurerm_eventhub.this["transcriptions"].retention_description[0].retention_time_in_hours == 24
    error_message = "transcriptions has not the partitions or the day that it should have"
  }

  assert {
    condition     = output.kafka_bootstrap == "evhns-whisperline-production-test.servicebus.windows.net:9093"
    error_message = "the bootstrap address is wrong"
  }

  assert {
    condition     = azurerm_private_endpoint.this["event-hubs"].private_service_connection[0].subresource_names[0] == "namespace"
    error_message = "pods cannot reach the namespace"
  }
}
