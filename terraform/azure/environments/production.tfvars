# Yours to change: location, unique_suffix, operator_ip_ranges, operator_group_ids. The values here are examples.
environment   = "production"
location      = "westeurope"
unique_suffix = "wl01"

operator_ip_ranges = ["198.51.100.0/24"]                      # a range that belongs to nobody (RFC 5737)
operator_group_ids = ["00000000-0000-0000-0000-000000000001"] # the object id of your group

storage_replication = "GZRS"
log_retention_days  = 90

system_pool = { min_count = 3, max_count = 4 }
cpu_pool    = { vm_size = "Standard_D8ds_v5", min_count = 3, max_count = 9 }
gpu_pool    = { max_count = 9 } # Triton's most replicas, and one for a roll-out
