/** `host:port`; an IPv6 address in brackets, so that where it ends is seen and the text is read back as it was meant. */
export function formatAddress({ host, port }: { readonly host: string; readonly port: number }): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}
