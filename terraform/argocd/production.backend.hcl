resource_group_name = "rg-whisperline-state"
container_name      = "tfstate"
key                 = "argocd-production.tfstate"
