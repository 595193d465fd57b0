resource "azurerm_virtual_network" "this" {
  name                = "vnet-${local.name}"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  address_space       = [var.network.address_space]
  tags                = local.tags
}

resource "azurerm_subnet" "nodes" {
  name                            = "nodes"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [var.network.nodes]
  default_outbound_access_enabled = false
}

resource "azurerm_subnet" "private_endpoints" {
  name                              = "private-endpoints"
  resource_group_name               = azurerm_resource_group.this.name
  virtual_network_name              = azurerm_virtual_network.this.name
  address_prefixes                  = [var.network.private_endpoints]
  default_outbound_access_enabled   = false
  private_endpoint_network_policies = "Enabled"
}

resource "azurerm_subnet" "postgresql" {
  count                           = var.postgresql == null ? 0 : 1
  name                            = "postgresql"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [var.network.postgresql]
  default_outbound_access_enabled = false

  delegation {
    name = "postgresql"

    service_delegation {
      name    = "Microsoft.DBforPostgreSQL/flexibleServers"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

locals {
  client_ip_ranges = coalesce(var.client_ip_ranges, var.operator_ip_ranges)
}

# The load balancer in front of the ingress passes the client's address on, so the nodes' own subnet must let it in.
resource "azurerm_network_security_group" "nodes" {
  name                = "nsg-${local.name}-nodes"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags

  security_rule {
    name                       = "https-to-ingress"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefixes    = local.client_ip_ranges
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "443"
  }

  # For the redirect to HTTPS, and a certificate's HTTP-01 challenge where everyone is let in.
  security_rule {
    name                       = "http-to-ingress"
    priority                   = 110
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefixes    = local.client_ip_ranges
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "80"
  }
}

locals {
  # What listens behind the nodes, and on which ports. Pods reach it with their node's address.
  inner_ports = {
    private-endpoints = ["443", "9093"]
    postgresql        = ["5432"]
  }
}

resource "azurerm_network_security_group" "inner" {
  for_each            = local.inner_ports
  name                = "nsg-${local.name}-${each.key}"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags

  security_rule {
    name                       = "from-nodes"
    priority                   = 100
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefix      = var.network.nodes
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_ranges    = each.value
  }

  # A replicated server's own members speak to each other.
  security_rule {
    name                       = "within-subnet"
    priority                   = 110
    direction                  = "Inbound"
    access                     = "Allow"
    protocol                   = "Tcp"
    source_address_prefix      = each.key == "postgresql" ? var.network.postgresql : var.network.private_endpoints
    source_port_range          = "*"
    destination_address_prefix = each.key == "postgresql" ? var.network.postgresql : var.network.private_endpoints
    destination_port_range     = "*"
  }

  security_rule {
    name                       = "nobody-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_address_prefix      = "*"
    source_port_range          = "*"
    destination_address_prefix = "*"
    destination_port_range     = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "nodes" {
  subnet_id                 = azurerm_subnet.nodes.id
  network_security_group_id = azurerm_network_security_group.nodes.id
}

resource "azurerm_subnet_network_security_group_association" "private_endpoints" {
  subnet_id                 = azurerm_subnet.private_endpoints.id
  network_security_group_id = azurerm_network_security_group.inner["private-endpoints"].id
}

resource "azurerm_subnet_network_security_group_association" "postgresql" {
  count                     = var.postgresql == null ? 0 : 1
  subnet_id                 = azurerm_subnet.postgresql[0].id
  network_security_group_id = azurerm_network_security_group.inner["postgresql"].id
}

locals {
  # Each service that is reached over a private address: its id, which of its parts, and the zone that names it.
  private = merge(
    {
      vault   = { id = azurerm_key_vault.this.id, part = "vault", zone = "privatelink.vaultcore.azure.net" }
      storage = { id = azurerm_storage_account.this.id, part = "blob", zone = "privatelink.blob.core.windows.net" }
    },
    var.event_hubs == null ? {} : {
      event-hubs = { id = azurerm_eventhub_namespace.this[0].id, part = "namespace", zone = "privatelink.servicebus.windows.net" }
    },
  )
}

resource "azurerm_private_dns_zone" "this" {
  for_each            = local.private
  name                = each.value.zone
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  for_each            = local.private
  name                = each.key
  private_dns_zone_id = azurerm_private_dns_zone.this[each.key].id
  virtual_network_id  = azurerm_virtual_network.this.id
  tags                = local.tags
}

resource "azurerm_private_endpoint" "this" {
  for_each            = local.private
  name                = "pe-${local.name}-${each.key}"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  subnet_id           = azurerm_subnet.private_endpoints.id
  tags                = local.tags

  private_service_connection {
    name                           = each.key
    private_connection_resource_id = each.value.id
    subresource_names              = [each.value.part]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = each.key
    private_dns_zone_ids = [azurerm_private_dns_zone.this[each.key].id]
  }
}
