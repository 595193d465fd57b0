# Yours to change: location, unique_suffix, operator_ip_ranges, operator_group_ids. The values here are examples.
environment   = "staging"
location      = "westeurope"
unique_suffix = "wl01"

operator_ip_ranges = ["198.51.100.0/24"]                      # a range that belongs to nobody (RFC 5737)
operator_group_ids = ["00000000-0000-0000-0000-000000000001"] # the object id of your group

cluster_sku_tier    = "Free"
storage_replication = "LRS"

system_pool = { min_count = 1, max_count = 2 }
cpu_pool    = { min_count = 2, max_count = 5 }
gpu_pool    = { max_count = 1 }
