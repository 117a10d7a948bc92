/* What FiftyOne's App provides to plugins, by the names that the panel's modules use. Nothing is built or bundled. */
export const { createContext, createElement: h, useCallback, useContext, useEffect, useRef, useState } = window.React;
export const mui = window.__mui__;
export const { executeOperator, usePanelEvent } = window.__foo__;
export const { usePanelId } = window.__fosp__;
export const { activeFields, colorScheme, selectedLabelTypes } = window.__fos__;
export const { useRecoilValue, useSetRecoilState } = window.recoil;
