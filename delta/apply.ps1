# Applies the Ferry delta in this folder, or in this folder's zip once unpacked.
#
#   powershell -ExecutionPolicy Bypass -File apply.ps1 --base OLD-FOLDER --to NEW-FOLDER
#   powershell -ExecutionPolicy Bypass -File apply.ps1 --in-place FOLDER
#
# Other options are those of "ferry delta apply". The exit code is ferry's; 5 says
# that there is no ferry to do it.

function Say([string] $text) { [Console]::Error.WriteLine('apply.ps1: ' + $text) }

$here = Split-Path -Parent $MyInvocation.MyCommand.Path
if ($args.Count -eq 0) {
    Say 'say what to do:  --base OLD-FOLDER --to NEW-FOLDER  or  --in-place FOLDER'
    exit 64
}

# A backslash before the quote that ends an argument would quote that.
$rest = @($args | ForEach-Object { if ("$_" -match '[^:\\/]\\+$') { "$_".TrimEnd('\') } else { "$_" } })

$os = 'windows'
$arch = 'amd64'
$names = @('ferry.exe')
if ($env:OS -eq 'Windows_NT') {
    if ("$env:PROCESSOR_ARCHITEW6432$env:PROCESSOR_ARCHITECTURE" -like '*ARM64*') { $arch = 'arm64' }
    $names = @("ferry-windows-$arch.exe", 'ferry.exe')
} else {
    $os = "$(uname -s)".ToLowerInvariant()
    $arch = "$(uname -m)".Replace('x86_64', 'amd64').Replace('aarch64', 'arm64')
    $names = @("ferry-$os-$arch", 'ferry')
}

$tool = $null
foreach ($name in $names) {
    $path = Join-Path (Join-Path $here 'tool') $name
    if (-not (Test-Path -LiteralPath $path -PathType Leaf)) { continue }
    if ($os -ne 'windows') { & chmod u+x $path }
    try { & $path version | Out-Null } catch { continue }
    if ($LASTEXITCODE -eq 0) { $tool = $path; break }
}
if (-not $tool) {
    $found = @(Get-Command -Name 'ferry' -CommandType Application -ErrorAction SilentlyContinue)
    if ($found.Count -gt 0) { $tool = $found[0].Path }
}
if (-not $tool) {
    Say "this delta carries no ferry for $os-$arch, and none is installed."
    Say "get the ferry program for $os-$arch, put it at"
    Say ('  ' + (Join-Path (Join-Path $here 'tool') $names[$names.Count - 1]))
    Say 'or in a folder of PATH, and run this again.'
    exit 5
}
& $tool delta apply $here @rest
exit $LASTEXITCODE
