// Package pkcs11 speaks with PKCS #11 modules (v2.40): NSS's softoken,
// SoftHSM, TPMs, smart cards. It knows the interface's objects and mechanisms
// and the oddities of these modules; it knows nothing of stores, enrollments
// or people. Two bindings carry it: binding_cgo.go, and for Windows, where the
// product is built without cgo, binding_windows.go. On Linux and macOS without
// cgo only this file is left.
package pkcs11
