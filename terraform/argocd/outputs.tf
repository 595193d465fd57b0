output "argo_cd_chart_version" {
  description = "Version of the chart that Argo CD was installed from."
  value       = helm_release.argo_cd.version
}
