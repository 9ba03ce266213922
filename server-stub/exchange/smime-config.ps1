<#
.SYNOPSIS
  S/MIME for Outlook on the web and the new Outlook.
.DESCRIPTION
  Hands the issuers to Exchange and sets how messages are signed and encrypted. It holds for
  the whole organization. Without -Apply it shows what differs and changes nothing.
  Needs the module ExchangeOnlineManagement and Connect-ExchangeOnline, or the management
  shell of Exchange Server; the lists of revoked certificates must be reachable from the internet.
#>
[CmdletBinding()]
param([switch]$Apply)
$ErrorActionPreference = 'Stop'

Write-Output ('S/MIME configuration for {0}' -f {{.Organization | quote}})
$want = [ordered]@{
  OWAAlwaysSign                                 = {{.AlwaysSign | switch}}
  OWAAlwaysEncrypt                              = {{.AlwaysEncrypt | switch}}
  OWASigningAlgorithms                          = '800C'  # SHA-256; Exchange's own choice is SHA-1
  OWAEncryptionAlgorithms                       = '6610'  # AES-256
  OWAClearSign                                  = $true
  OWASignedEmailCertificateInclusion            = $true
  OWAIncludeCertificateChainWithoutRootCertificate = $true  # partners need the issuers
  OWAIncludeSMIMECapabilitiesInMessage          = $true     # partners learn which ciphers are read here
  OWAAllowUserChoiceOfSigningCertificate        = $false    # the newest: so a renewal switches by itself
  OWACheckCRLOnSend                             = $false    # else a list out of reach stops sending
}
$is = Get-SmimeConfig
$change = @{}
foreach ($name in $want.Keys) {
  if ("$($is.$name)" -ne "$($want[$name])") {
    Write-Output ('{0}: is {1}, shall be {2}' -f $name, $is.$name, $want[$name])
    $change[$name] = $want[$name]
  }
}
$store = [System.IO.File]::ReadAllBytes((Join-Path $PSScriptRoot {{.StoreFile | quote}}))
$same = $is.SMIMECertificateIssuingCA -and
  (@(Compare-Object $is.SMIMECertificateIssuingCA $store -SyncWindow 0).Count -eq 0)
if (-not $same) {
  Write-Output ('SMIMECertificateIssuingCA: shall be {0} ({1} octets)' -f {{.StoreFile | quote}}, $store.Length)
  $change['SMIMECertificateIssuingCA'] = $store
}
if ($change.Count -eq 0) { Write-Output 'Nothing differs.'; return }
if (-not $Apply) { Write-Output 'Nothing was changed. Run it again with -Apply.'; return }
Get-SmimeConfig | Export-Clixml (Join-Path $PSScriptRoot ('smime-config-before-{0:yyyyMMddHHmmss}.xml' -f (Get-Date)))
Set-SmimeConfig @change
Write-Output 'Done. Outlook on the web takes it with the next sign-in.'
