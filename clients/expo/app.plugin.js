export { default } from "./plugin/build/index.js";
