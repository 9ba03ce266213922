/* Wine 8 has no bcryptprimitives.dll, and Go programs do not start without
 * (runtime/os_windows.go, loadOptionalSyscalls; they want ProcessPrng and load
 * it from the system's folder only). This one draws from Wine's own source. For
 * tests under Wine alone. */
#include <windows.h>
#include <stddef.h>

BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length); /* RtlGenRandom */

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *buffer, size_t length)
{
    while (length > 0) {
        ULONG piece = length < (1u << 28) ? (ULONG)length : 1u << 28;
        if (!SystemFunction036(buffer, piece))
            return FALSE;
        buffer += piece;
        length -= piece;
    }
    return TRUE;
}
