// Package macos is what the package for macOS is made of: the jobs of launchd,
// the scripts of the installer, and their checks. It has no code.
package macos
