<#
.SYNOPSIS
  Finds rules of mail flow that change messages, and leaves S/MIME messages out of them.
.DESCRIPTION
  A disclaimer or a mark in the subject breaks the signature of a message, or turns an encrypted
  one into something that no program opens. Without -Apply it shows the rules and changes nothing.
  A rule that has exceptions of the same kind already is only shown: merge them by hand.
#>
[CmdletBinding()]
param([switch]$Apply)
$ErrorActionPreference = 'Stop'

$types = @('application/pkcs7-mime', 'application/x-pkcs7-mime')
foreach ($rule in Get-TransportRule) {
  $changes = $rule.ApplyHtmlDisclaimerText -or $rule.ApplyClassification -or $rule.PrependSubject
  if (-not $changes) { continue }
  if ($rule.ExceptIfMessageTypeMatches -or $rule.ExceptIfHeaderContainsMessageHeader) {
    $signed = "$($rule.ExceptIfMessageTypeMatches)" -eq 'Signed'
    $opaque = "$($rule.ExceptIfHeaderContainsWords)" -match 'pkcs7-mime'
    if (-not ($signed -and $opaque)) { Write-Output ('By hand: {0} has exceptions of its own' -f $rule.Name) }
    continue
  }
  Write-Output ('{0} changes S/MIME messages' -f $rule.Name)
  if ($Apply) {
    Set-TransportRule -Identity $rule.Guid -ExceptIfMessageTypeMatches Signed `
      -ExceptIfHeaderContainsMessageHeader 'Content-Type' -ExceptIfHeaderContainsWords $types
  }
}
if (-not $Apply) { Write-Output 'Nothing was changed. Run it again with -Apply.' }
