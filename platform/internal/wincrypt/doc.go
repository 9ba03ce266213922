// Package wincrypt binds what Windows has for keys and certificates: CNG
// (ncrypt.dll), the older CryptoAPI with its service providers (advapi32.dll)
// and the certificate stores (crypt32.dll). What is made of them is package
// platform's business. The layouts and the error codes compile everywhere, so
// that their tests run everywhere.
//
// The libraries are loaded from the system's folder only, and each procedure
// is looked up when it is first called: one that an edition of Windows lacks
// is an error of that call, not of the program.
package wincrypt
