// Package winestore lets programs that none of us wrote judge the credentials
// in Windows' own stores, under Wine: a C program that knows crypt32 alone, as
// a mail program does, and OpenSSL outside of Wine. It has tests only, one half
// for Linux, which drives, and one for Windows, which is driven.
package winestore
