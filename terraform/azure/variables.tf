variable "environment" {
  description = "Name of the environment; part of every name."
  type        = string

  validation {
    condition     = contains(["staging", "production"], var.environment)
    error_message = "environment must be staging or production: charts/argocd has values for these two."
  }
}

variable "location" {
  description = "Azure region, as `az account list-locations` names it. It needs three availability zones and quota for `gpu_pool.vm_size`."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]+$", var.location))
    error_message = "location must be a region's short name, such as westeurope."
  }
}

variable "unique_suffix" {
  description = "Makes the names unique that all of Azure shares: vault, storage account, servers."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,6}$", var.unique_suffix))
    error_message = "unique_suffix must be 3 to 6 lower-case letters or digits: a vault's name has room for no more."
  }
}

variable "tags" {
  description = "Tags of every resource, beside environment and project."
  type        = map(string)
  default     = {}
}

variable "network" {
  description = "Address ranges. `pods` and `services` are the cluster's own and appear nowhere else; a /16 of pods holds 256 nodes."
  type = object({
    address_space     = optional(string, "10.40.0.0/16")
    nodes             = optional(string, "10.40.0.0/20")
    private_endpoints = optional(string, "10.40.16.0/24")
    postgresql        = optional(string, "10.40.17.0/24")
    pods              = optional(string, "10.244.0.0/16")
    services          = optional(string, "10.41.0.0/16")
  })
  default = {}

  validation {
    condition     = alltrue([for range in values(var.network) : can(cidrhost(range, 0))])
    error_message = "network must hold ranges in CIDR notation, such as 10.40.0.0/16."
  }

  validation {
    condition = length(distinct([
      for range in [var.network.address_space, var.network.pods, var.network.services] :
      "${split(".", range)[0]}.${split(".", range)[1]}"
    ])) == 3
    error_message = "network: address_space, pods and services must not lie in the same /16."
  }
}

variable "operator_ip_ranges" {
  description = "Public ranges from which people may reach the Kubernetes API and write secrets. Everyone still has to sign in."
  type        = list(string)

  validation {
    condition     = length(var.operator_ip_ranges) > 0
    error_message = "operator_ip_ranges must not be empty: an API server without ranges is open to all addresses."
  }

  validation {
    condition     = alltrue([for range in var.operator_ip_ranges : can(cidrhost(range, 0)) && try(tonumber(split("/", range)[1]) >= 16, false)])
    error_message = "operator_ip_ranges must hold ranges of /16 or smaller in CIDR notation, such as 198.51.100.7/32."
  }
}

variable "client_ip_ranges" {
  description = "Public ranges from which clients may reach the ingress; null for operator_ip_ranges, [\"0.0.0.0/0\"] for everyone. The gateway has no accounts: who gets in may transcribe."
  type        = list(string)
  default     = null

  validation {
    condition     = var.client_ip_ranges == null ? true : length(var.client_ip_ranges) > 0 && alltrue([for range in var.client_ip_ranges : can(cidrhost(range, 0))])
    error_message = "client_ip_ranges must be null, or hold ranges in CIDR notation, such as 198.51.100.0/24."
  }
}

variable "operator_group_ids" {
  description = "Object ids of the Entra groups that administer the cluster and write secrets."
  type        = list(string)

  validation {
    condition     = length(var.operator_group_ids) > 0 && alltrue([for id in var.operator_group_ids : can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", id))])
    error_message = "operator_group_ids must hold at least one object id, such as 00000000-0000-0000-0000-000000000001."
  }
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes. Models are mounted as image volumes, which are on from 1.35."
  type        = string
  default     = "1.36"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version)) && try(tonumber(split(".", var.kubernetes_version)[1]) >= 35, false)
    error_message = "kubernetes_version must be a minor version from 1.35 on, such as 1.36."
  }
}

variable "cluster_sku_tier" {
  description = "Free has no agreed availability of the Kubernetes API; Standard has."
  type        = string
  default     = "Standard"

  validation {
    condition     = contains(["Free", "Standard"], var.cluster_sku_tier)
    error_message = "cluster_sku_tier must be Free or Standard."
  }
}

variable "system_pool" {
  description = "Nodes of the cluster's own pods. Three, one a zone, keep DNS through the loss of a zone."
  type = object({
    vm_size   = optional(string, "Standard_D4ds_v5")
    min_count = optional(number, 2)
    max_count = optional(number, 3)
  })
  default = {}

  validation {
    condition     = var.system_pool.min_count >= 1 && var.system_pool.min_count <= var.system_pool.max_count
    error_message = "system_pool: min_count must be at least 1 and at most max_count."
  }
}

variable "cpu_pool" {
  description = "Nodes of gateway, transcriber, persistence, Kafka and PostgreSQL."
  type = object({
    vm_size   = optional(string, "Standard_D4ds_v5")
    min_count = optional(number, 3)
    max_count = optional(number, 6)
  })
  default = {}

  validation {
    condition     = var.cpu_pool.min_count >= 0 && var.cpu_pool.min_count <= var.cpu_pool.max_count
    error_message = "cpu_pool: min_count must be at least 0 and at most max_count."
  }
}

variable "gpu_pool" {
  description = "Nodes of Triton, tainted and labelled sku=gpu. With min_count 0 there are none, and nothing to pay, until a pod asks for a GPU."
  type = object({
    vm_size   = optional(string, "Standard_NC4as_T4_v3")
    min_count = optional(number, 0)
    max_count = optional(number, 4)
    zones     = optional(list(string), ["1", "2", "3"])
  })
  default = {}

  validation {
    condition     = startswith(var.gpu_pool.vm_size, "Standard_N")
    error_message = "gpu_pool: vm_size must be a size with a GPU: their names begin with Standard_N."
  }

  validation {
    condition     = var.gpu_pool.min_count >= 0 && var.gpu_pool.min_count <= var.gpu_pool.max_count
    error_message = "gpu_pool: min_count must be at least 0 and at most max_count."
  }
}

variable "service_accounts" {
  description = "Which Kubernetes service accounts, as namespace/name, may act as which identity."
  type = object({
    secrets = optional(set(string), [
      "external-secrets/external-secrets",
      "whisperline/whisperline-gateway",
      "whisperline/whisperline-migrations",
      "whisperline/whisperline-persistence",
      "whisperline/whisperline-topics",
      "whisperline/whisperline-transcriber",
    ])
    metrics = optional(set(string), ["keda/keda-operator"])
    backups = optional(set(string), ["whisperline/whisperline-postgres"])
    models  = optional(set(string), [])
  })
  default = {}

  validation {
    condition     = alltrue([for account in setunion(values(var.service_accounts)...) : can(regex("^[a-z0-9-]+/[a-z0-9-]+$", account))])
    error_message = "service_accounts must be written namespace/name."
  }
}

variable "storage_replication" {
  description = "How many copies of models and backups there are, and where: ZRS three zones, GZRS a second region besides."
  type        = string
  default     = "ZRS"

  validation {
    condition     = contains(["LRS", "ZRS", "GZRS", "RAGZRS"], var.storage_replication)
    error_message = "storage_replication must be LRS, ZRS, GZRS or RAGZRS."
  }
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = var.log_retention_days >= 30 && var.log_retention_days <= 730
    error_message = "log_retention_days must be 30 to 730."
  }
}

variable "postgresql" {
  description = "A managed PostgreSQL instead of the one in charts/data; null for none. `password_version` goes up by one when the password changes."
  type = object({
    version               = optional(string, "17")
    sku_name              = optional(string, "GP_Standard_D2ds_v5")
    storage_mb            = optional(number, 65536)
    backup_retention_days = optional(number, 14)
    geo_redundant_backup  = optional(bool, true)
    zone_redundant        = optional(bool, true)
    password_version      = optional(number, 1)
  })
  default = null

  validation {
    condition     = var.postgresql == null ? true : contains(["16", "17", "18"], var.postgresql.version)
    error_message = "postgresql: version must be 16, 17 or 18."
  }

  validation {
    condition     = var.postgresql == null ? true : !(var.postgresql.zone_redundant && startswith(var.postgresql.sku_name, "B_"))
    error_message = "postgresql: a burstable sku_name (B_...) has no second zone: set zone_redundant = false."
  }

  validation {
    condition     = var.postgresql == null ? true : var.postgresql.backup_retention_days >= 7 && var.postgresql.backup_retention_days <= 35
    error_message = "postgresql: backup_retention_days must be 7 to 35."
  }
}

variable "postgresql_password" {
  description = "Password of PostgreSQL's administrator, given as TF_VAR_postgresql_password. It goes to the server and into no state or plan."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true

  # A workflow's secret that is not set comes as "".
  validation {
    condition     = var.postgresql == null || length(var.postgresql_password == null ? "" : var.postgresql_password) >= 16
    error_message = "postgresql_password must have 16 characters or more, and be given to every plan of an environment with postgresql."
  }
}

variable "event_hubs" {
  description = "A managed Kafka instead of the one in charts/data; null for none. Only with the tier Premium."
  type = object({
    processing_units = optional(number, 1)
    audio_partitions = optional(number, 8)
    reply_partitions = optional(number, 8)
  })
  default = null

  validation {
    condition     = var.event_hubs == null ? true : contains([1, 2, 4, 6, 8, 10, 12, 16], var.event_hubs.processing_units)
    error_message = "event_hubs: processing_units must be 1, 2, 4, 6, 8, 10, 12 or 16."
  }

  validation {
    condition     = var.event_hubs == null ? true : max(var.event_hubs.audio_partitions, var.event_hubs.reply_partitions) <= 100
    error_message = "event_hubs: a hub has at most 100 partitions."
  }
}
