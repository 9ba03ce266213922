// Package outlook reads and writes what classic Outlook for Windows (2013 and
// later) keeps of S/MIME: the security profile in each MAPI profile, and the
// values beside it. It knows the bytes and the places, not the registry itself,
// so that it runs and is tested on every system.
//
// The layout of the settings block is public (MS-OXOABK §2.2.4.36, KB 312900);
// that of the multi-valued binary around it is known from tools that write it.
// No Outlook has been asked yet whether it likes several entries, or a padding
// other than ours.
package outlook
