// Package e2e runs the built programs as a company would: central management,
// the service, the helpers of its users, each a process of its own, in a
// folder of their own. The demo and the end-to-end tests stand on it.
//
// On Linux the whole is run; on macOS one way into the keychain.
package e2e
