resource_group_name = "rg-whisperline-state"
container_name      = "tfstate"
key                 = "argocd-staging.tfstate"
