/** Files that Vite gives an address. */
declare module '*?url' {
  const url: string;
  export default url;
}
