output "argo_cd_version" {
  description = "Version of Argo CD that the chart installed."
  value       = helm_release.argo_cd.metadata.app_version
}
